"""How jobs put a new .npy in the place of an old one: well, and otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.kit.npy_files import npy_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = (
    "ConfigMapFolder",
    "publish",
    "put_whole",
    "rewrite_in_place",
    "stamped",
    "stamps",
    "write_torn",
)


def stamped(generation: int, *, rows: int, dim: int) -> NDArray[np.float32]:
    """Vectors whose every row tells the generation it belongs to: the angle of its first two components."""
    angle = np.float64(generation % 1000) * 2 * np.pi / 1000
    vectors = np.zeros((rows, dim), np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(angle), np.sin(angle)
    return vectors


def stamps(vectors: NDArray[np.float32]) -> set[int]:
    """Generations (modulo 1000) that the rows of a loaded matrix [rows, dim] belong to."""
    turns = np.arctan2(vectors[:, 1].astype(np.float64), vectors[:, 0].astype(np.float64)) / (2 * np.pi)
    return set((np.rint(turns * 1000).astype(int) % 1000).tolist())


def put_whole(path: Path, content: bytes | str) -> None:
    """The recommended way: a complete file, renamed into place; nobody finds it half written."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    temporary.replace(path)


def publish(path: Path, array: NDArray[Any]) -> None:
    """A matrix, as a whole."""
    put_whole(path, npy_bytes(array))


def rewrite_in_place(path: Path, array: NDArray[Any]) -> None:
    """The same inode, row by row, without truncating it: what a reader sees meanwhile is a mixture."""
    data = memoryview(npy_bytes(array))
    with path.open("r+b", buffering=0) as file:
        for start in range(0, len(data), 64 * 1024):
            file.write(data[start : start + 64 * 1024])


def write_torn(path: Path, array: NDArray[Any], *, share: float = 0.5) -> None:
    """A writer that died: the first `share` of the file."""
    data = npy_bytes(array)
    path.write_bytes(data[: int(len(data) * share)])


class ConfigMapFolder:
    """A mounted ConfigMap: NAME -> ..data/NAME, ..data -> a dated folder, flipped as a whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._generation = 0

    def write(self, files: dict[str, bytes]) -> None:
        """Put another generation of all files in place: one rename of `..data`."""
        self._generation += 1
        dated = self._folder / f"..2026_01_01_{self._generation}"
        dated.mkdir()
        for name, content in files.items():
            (dated / name).write_bytes(content)
            link = self._folder / name
            if not link.is_symlink():
                link.symlink_to(Path("..data") / name)
        old = self._folder / "..data"
        before = old.readlink() if old.is_symlink() else None
        temporary = self._folder / "..data_tmp"
        temporary.symlink_to(dated.name)
        temporary.replace(old)
        if before is not None:
            for stale in (self._folder / before).iterdir():
                stale.unlink()
            (self._folder / before).rmdir()
