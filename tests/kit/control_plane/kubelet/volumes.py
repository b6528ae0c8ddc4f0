"""A pod's volumes: folders that follow their ConfigMaps and Secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.kit.control_plane.kubelet.volume_files import replace_files

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.control_plane.kubelet.resources import Pod
    from tests.kit.control_plane.kubelet.sources import Sources

__all__ = ("Volumes",)


class Volumes:
    """All volumes of one pod, below one folder."""

    def __init__(self, pod: Pod, sources: Sources, folder: Path) -> None:
        self._pod = pod
        self._sources = sources
        self._folder = folder

    async def write(self) -> dict[str, Path]:
        """Bring the files up to date; the folder of each volume by name. Raises what `Sources` raises."""
        folders: dict[str, Path] = {}
        for volume in self._pod.spec.volumes:
            if (outside := await self._sources.folder(volume)) is not None:
                folders[volume.name] = outside
                continue
            folder = folders[volume.name] = self._folder / volume.name
            folder.mkdir(parents=True, exist_ok=True)
            files = await self._sources.files(volume)
            if files is None:
                folder.chmod(0o777)  # an emptyDir is everybody's
            else:
                replace_files(folder, files)
        return folders
