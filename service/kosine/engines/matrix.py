"""The one in-memory form of an index: float32, dim-major, in tiles of columns, ready for the engine.

Dim-major because a GEMM against `[d, N]` is 3-6 times faster than against `[N, d]` at small batches
(docs/performance.md). Tiles, because a call then needs memory for the scores of one tile, not of all rows.
Columns are padded with zeros to whole blocks of the two-stage top-k. The buffer is anonymous memory at a page
boundary: TensorFlow takes over 64-byte aligned memory without a copy and aborts the process on any other.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ("BLOCK", "DimMajorMatrix", "padded_rows", "tiling")

BLOCK = 128
"""Columns per block of the two-stage top-k; the columns of a tile are a multiple of it."""

MOST_COLUMNS = 2**17
"""Of a matrix that is one tile: a call on each of several costs a few per cent more than one on all."""

TILE_COLUMNS = 2**16
"""Of one tile of several: its scores for 128 queries are 32 MiB."""


def padded_rows(rows: int) -> int:
    """`rows` rounded up to whole blocks.

    >>> padded_rows(1), padded_rows(128), padded_rows(129)
    (128, 128, 256)
    """
    return -(-rows // BLOCK) * BLOCK


def tiling(rows: int) -> tuple[int, int]:
    """How many tiles hold `rows`, and the columns of each; only the last holds fewer rows than columns.

    >>> tiling(1), tiling(100_000), tiling(1_000_000)
    ((1, 128), (1, 100096), (16, 62592))
    """
    tiles = 1 if rows <= MOST_COLUMNS else -(-rows // TILE_COLUMNS)
    columns = padded_rows(-(-rows // tiles))
    return -(-rows // columns), columns


@dataclass(frozen=True, slots=True, eq=False)
class DimMajorMatrix:
    """`data` [tiles, dim, columns]: row r is column `r % columns` of tile `r // columns`; padding is zero."""

    data: NDArray[np.float32]
    rows: int

    @property
    def dim(self) -> int:
        """Length of one item."""
        return int(self.data.shape[1])

    @property
    def columns(self) -> int:
        """Of each tile."""
        return int(self.data.shape[2])

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer, padding included."""
        return int(self.data.nbytes)

    @classmethod
    def allocate(cls, rows: int, dim: int) -> DimMajorMatrix:
        """Zeroed, page-aligned memory that goes back to the system when the last reference drops."""
        tiles, columns = tiling(rows)
        buffer = mmap.mmap(-1, tiles * dim * columns * 4, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            buffer.madvise(mmap.MADV_HUGEPAGE)
        data = np.frombuffer(buffer, dtype=np.float32).reshape(tiles, dim, columns)
        return cls(data=data, rows=rows)

    def tiles(self) -> list[tuple[int, int]]:
        """(first row, rows) of each tile; none is empty.

        >>> DimMajorMatrix.allocate(200_000, 1).tiles()
        [(0, 50048), (50048, 50048), (100096, 50048), (150144, 49856)]
        """
        starts = range(0, self.rows, self.columns)
        return [(first, min(self.columns, self.rows - first)) for first in starts]

    def tile(self, number: int) -> DimMajorMatrix:
        """One tile by itself, the same memory."""
        _, rows = self.tiles()[number]
        return DimMajorMatrix(data=self.data[number : number + 1], rows=rows)

    def first(self, rows: int) -> DimMajorMatrix:
        """The same memory with only its first `rows`, at least one; what is behind them becomes padding."""
        tiles = -(-rows // self.columns)
        self.data[tiles - 1, :, rows - (tiles - 1) * self.columns :] = 0.0
        return DimMajorMatrix(data=self.data[:tiles], rows=rows)

    def spans(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Rows `start` to `stop` as views [dim, n], each with the number of its first row."""
        while start < stop:
            tile, left = divmod(start, self.columns)
            right = min(self.columns, left + stop - start)
            yield start, self.data[tile, :, left:right]
            start += right - left

    def take(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Copies [n, dim] of the rows with these numbers."""
        tiles, places = np.divmod(rows, self.columns)
        return np.ascontiguousarray(self.data[tiles, :, places])
