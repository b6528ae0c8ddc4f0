"""The one in-memory form of an index: float32, in tiles, ready for the engine.

Tiles, because a call then needs memory for the scores of one tile, not of all items. Inside a tile either all
first components come first, `dim_major`, or item comes after item, `row_major`; which of the two the engine
wants is a matter of speed alone. Tiles are padded with zeros to whole blocks of the
two-stage top-k. The buffer is anonymous memory at a page boundary: TensorFlow takes over 64-byte aligned
memory without a copy and aborts the process on any other.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ("BLOCK", "ItemMatrix", "Order", "padded_rows", "tiling", "zeroed")

Order = Literal["row_major", "dim_major"]
"""Item after item, or component after component."""

BLOCK = 128
"""Columns per block of the two-stage top-k; the columns of a tile are a multiple of it."""

MOST_COLUMNS = 2**17
"""Of a matrix that is one tile: a call on each of several costs a few per cent more than one on all."""

TILE_COLUMNS = 2**16
"""Of one tile of several: its scores for 128 queries are 32 MiB."""


def zeroed(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Zeroed, page-aligned memory that goes back to the system when the last reference drops."""
    buffer = mmap.mmap(-1, math.prod(shape) * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        buffer.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(buffer, dtype=dtype).reshape(shape)


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
class ItemMatrix:
    """Item r is number `r % columns` of tile `r // columns`; padding is zero.

    `data` is [tiles, dim, columns] in the order `dim_major`, and [tiles, columns, dim] in the other.
    """

    data: NDArray[np.float32]
    rows: int
    order: Order = "dim_major"

    @property
    def dim_major(self) -> NDArray[np.float32]:
        """A view [tiles, dim, columns], whatever the order in memory."""
        return self.data if self.order == "dim_major" else self.data.transpose(0, 2, 1)

    @property
    def dim(self) -> int:
        """Length of one item."""
        return int(self.dim_major.shape[1])

    @property
    def columns(self) -> int:
        """Of each tile, one an item."""
        return int(self.dim_major.shape[2])

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer, padding included."""
        return int(self.data.nbytes)

    @classmethod
    def allocate(cls, rows: int, dim: int, order: Order = "dim_major") -> ItemMatrix:
        """Zeroed, page-aligned memory that goes back to the system when the last reference drops."""
        tiles, columns = tiling(rows)
        shape = (tiles, dim, columns) if order == "dim_major" else (tiles, columns, dim)
        return cls(data=zeroed(shape, np.dtype(np.float32)), rows=rows, order=order)

    def tiles(self) -> list[tuple[int, int]]:
        """(first row, rows) of each tile; none is empty.

        >>> ItemMatrix.allocate(200_000, 1).tiles()
        [(0, 50048), (50048, 50048), (100096, 50048), (150144, 49856)]
        """
        starts = range(0, self.rows, self.columns)
        return [(first, min(self.columns, self.rows - first)) for first in starts]

    def tile(self, number: int) -> ItemMatrix:
        """One tile by itself, the same memory."""
        _, rows = self.tiles()[number]
        return replace(self, data=self.data[number : number + 1], rows=rows)

    def first(self, rows: int) -> ItemMatrix:
        """The same memory with only its first `rows`, at least one; what is behind them becomes padding."""
        tiles = -(-rows // self.columns)
        self.dim_major[tiles - 1, :, rows - (tiles - 1) * self.columns :] = 0.0
        return replace(self, data=self.data[:tiles], rows=rows)

    def spans(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Rows `start` to `stop` as views [dim, n], each with the number of its first row."""
        while start < stop:
            tile, left = divmod(start, self.columns)
            right = min(self.columns, left + stop - start)
            yield start, self.dim_major[tile, :, left:right]
            start += right - left

    def take(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Copies [n, dim] of the rows with these numbers."""
        tiles, places = np.divmod(rows, self.columns)
        if self.order == "row_major":
            return self.data[tiles, places]
        return np.ascontiguousarray(self.data[tiles, :, places])
