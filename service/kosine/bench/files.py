"""The .npy files of a run: made, read, and replaced while the service reads them."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from kosine.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ("Alternating", "alternating", "make_file", "make_mask", "make_queries", "read_file", "read_mask")

_CHUNK_BYTES = 64 * 2**20
_DIGITS = 8
_MASK_STREAM = 2
"""Keeps a mask independent of vectors of the same seed."""


def make_file(path: Path, *, rows: int, dim: int, seed: int) -> None:
    """Write `rows` Gaussian vectors. Raises StartupError where they do not fit on the disk."""
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK_BYTES // (4 * dim))
    sizes = [min(step, rows - start) for start in range(0, rows, step)]
    chunks = (rng.standard_normal((size, dim), dtype=np.float32) for size in sizes)
    _write(path, (rows, dim), np.dtype("<f4"), chunks)


def read_file(path: Path) -> NDArray[np.floating]:
    """The rows [N, d] of `path`, mapped. Raises StartupError where it is no 2-D array of floats."""
    try:
        vectors: NDArray[np.floating] = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no .npy file"
        raise StartupError(f"cannot read {path}: {reason}; `kosine inspect` says more") from error
    if vectors.ndim != 2 or not len(vectors) or vectors.dtype.kind != "f":  # noqa: PLR2004  rows and dim
        raise StartupError(
            f"{path}: expected rows of floats, shape (N, d), got {vectors.dtype} of shape {vectors.shape}; "
            "other layouts cannot be checked here: give --url without --file"
        )
    return vectors


def make_mask(path: Path, *, rows: int, share: float, seed: int) -> None:
    """Write a mask of `rows` flags, of which about `share` are true, anywhere."""
    np.save(path, np.random.default_rng([seed, _MASK_STREAM]).random(rows) < share)


def read_mask(path: Path, *, rows: int) -> NDArray[np.bool_]:
    """The flags [rows] of `path`. Raises StartupError where it is no such mask."""
    try:
        flags: NDArray[np.bool_] = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no .npy file"
        raise StartupError(f"cannot read {path}: {reason}; `kosine inspect` says more") from error
    if flags.dtype.kind != "b" or flags.shape != (rows,):
        raise StartupError(
            f"{path}: expected {rows} bools, one for each row, got {flags.dtype} of shape {flags.shape}"
        )
    return flags


def make_queries(count: int, dim: int, *, seed: int) -> NDArray[np.float64]:
    """Distinct Gaussian queries [count, d], with as many digits as are sent."""
    return np.random.default_rng(seed).standard_normal((count, dim)).round(_DIGITS)


class Alternating:
    """A served file and its two contents: the original rows, and the same rows rolled by half their number.

    Rolled rows are another version that costs the same to load, and whose right answers are known without
    computing them again. The bytes of both lie ready, so a replacement is a rename and writes nothing.
    """

    def __init__(self, served: Path, *, original: Path, other: Path, shift: int) -> None:
        self._served = served
        self._contents = ((original, 0), (other, shift))
        self._current = 0

    @property
    def rolled(self) -> int:
        """By how many rows the current content is rolled."""
        return self._contents[self._current][1]

    def replace(self) -> None:
        """Put the other content in place, in one rename."""
        self._current = 1 - self._current
        aside = self._served.with_name(f".{self._served.name}.kosine-bench")
        os.link(self._contents[self._current][0], aside)
        aside.rename(self._served)


@contextmanager
def alternating(served: Path, folder: Path) -> Iterator[Alternating]:
    """Prepare `served` to be replaced, keeping copies in `folder` of the same file system.

    The original file, the very inode, is back under its name when the block ends.
    """
    vectors = read_file(served)
    if len(vectors) < 2:  # noqa: PLR2004  two rows are the least that can be rolled
        raise StartupError(f"{served}: expected at least 2 rows to reload it with another order, got 1")
    original, other = folder / "original.npy", folder / "rolled.npy"
    shift = len(vectors) // 2
    _write(other, vectors.shape, vectors.dtype, _rolled(vectors, shift))
    os.link(served, original)
    files = Alternating(served, original=original, other=other, shift=shift)
    try:
        yield files
    finally:
        if files.rolled:
            files.replace()


def _rolled(vectors: NDArray[np.floating], shift: int) -> Iterator[NDArray[np.floating]]:
    step = max(1, _CHUNK_BYTES // (vectors.itemsize * vectors.shape[1]))
    for part in (vectors[-shift:], vectors[:-shift]):
        for start in range(0, len(part), step):
            yield part[start : start + step]


def _write(
    path: Path, shape: tuple[int, int], dtype: np.dtype[Any], chunks: Iterable[NDArray[np.floating]]
) -> None:
    needed, free = shape[0] * shape[1] * dtype.itemsize, shutil.disk_usage(path.parent).free
    if free < needed:
        raise StartupError(
            f"expected {needed} bytes free in {path.parent}, got {free}; set TMPDIR to a larger file system"
        )
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in chunks:
            np.ascontiguousarray(chunk).tofile(file)
