"""One run of a container: a process in the pod's network, with its volumes at their mount paths."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.kit.control_plane.kubelet.resources import Container
    from tests.kit.control_plane.kubelet.settings import Image

__all__ = ("ContainerProcess", "Mount", "mounts", "start")

_ENTER = Path(__file__).with_name("enter-container")
_ENTER_IMAGE = Path(__file__).with_name("enter-image")


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of this machine at a path in the container."""

    source: Path
    target: str
    read_only: bool


@dataclass(frozen=True, slots=True, eq=False)
class ContainerProcess:
    """A running process, or one that has ended."""

    process: asyncio.subprocess.Process
    address: str
    """The pod's."""

    async def wait(self) -> int:
        """The exit code as a shell gives it: 128 + the signal's number for a killed process."""
        code = await self.process.wait()
        return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        """SIGTERM to the container's first process, as a container runtime does."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to everything in the container."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    async def run(self, command: Sequence[str]) -> int:
        """The exit code of a further command inside the container."""
        inside = ("nsenter", "--target", str(self.process.pid), "--mount", "--net", "--root", "--wd", "--")
        silent = asyncio.subprocess.DEVNULL
        further = await asyncio.create_subprocess_exec(*inside, *command, stdout=silent, stderr=silent)
        try:
            return await further.wait()
        finally:
            if further.returncode is None:
                further.kill()


def mounts(
    container: Container, volumes: Mapping[str, Path], image_folders: Sequence[str]
) -> tuple[Mount, ...]:
    """The container's volumes, outer mount paths first, then what of the image they would hide."""
    unsupported = [mount.mount_path for mount in container.volume_mounts if mount.sub_path]
    if unsupported:
        raise ValueError(f"subPath mounts do not follow changes and are not supported: {unsupported}")
    wanted = [
        Mount(volumes[mount.name], mount.mount_path.rstrip("/"), mount.read_only)
        for mount in sorted(container.volume_mounts, key=lambda mount: mount.mount_path)
    ]
    hidden = [
        Mount(Path(folder), folder, read_only=True)
        for folder in image_folders
        if any(Path(folder).is_relative_to(mount.target) for mount in wanted)
    ]
    return (*wanted, *hidden)


async def start(
    container: Container,
    image: Image,
    command: Sequence[str],
    environment: Mapping[str, str],
    mounted: Sequence[Mount],
    *,
    network: int,
    address: str,
    folder: Path,
) -> ContainerProcess:
    """Start it; its output goes to `<container>.log` in `folder`.

    `network` is the id of a process in the pod's network.
    """
    scratch = tempfile.mkdtemp(prefix="root-", dir=folder)
    read_only = (
        container.security_context is not None and container.security_context.read_only_root_filesystem
    )
    volumes = [
        word
        for mount in mounted
        for word in (str(mount.source), mount.target, "ro" if mount.read_only else "rw")
    ]
    with (folder / f"{container.name}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *("nsenter", f"--net=/proc/{network}/ns/net", "--"),
            *("unshare", "--mount", "--propagation", "private", "--"),
            *(_ENTER_IMAGE if image.root else _ENTER, scratch),
            *("ro" if read_only else "rw", container.working_dir or "/"),
            *((image.root, image.user) if image.root else ()),
            *(*volumes, "--", *command),
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return ContainerProcess(process, address)
