"""The one in-memory form of an index: `[dim, padded rows]` float32, ready for the engine.

Dim-major because a GEMM against `[d, N]` is 3-6 times faster than against `[N, d]` at small batches
(docs/performance.md). Columns are padded with zeros to whole blocks of the two-stage top-k. The buffer is
anonymous memory at a page boundary: TensorFlow takes over 64-byte aligned memory without a copy and aborts
the process on any other.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ("BLOCK", "DimMajorMatrix", "padded_rows")

BLOCK = 128
"""Columns per block of the two-stage top-k; rows are padded to a multiple of it."""


def padded_rows(rows: int) -> int:
    """`rows` rounded up to whole blocks.

    >>> padded_rows(1), padded_rows(128), padded_rows(129)
    (128, 128, 256)
    """
    return -(-rows // BLOCK) * BLOCK


@dataclass(frozen=True, slots=True, eq=False)
class DimMajorMatrix:
    """`data[:, :rows]` holds one item a column; the padding behind is zero."""

    data: NDArray[np.float32]
    rows: int

    @property
    def dim(self) -> int:
        """Length of one item."""
        return int(self.data.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer, padding included."""
        return int(self.data.nbytes)

    @classmethod
    def allocate(cls, rows: int, dim: int) -> DimMajorMatrix:
        """Zeroed, page-aligned memory that goes back to the system when the last reference drops."""
        columns = padded_rows(rows)
        buffer = mmap.mmap(-1, dim * columns * 4, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            buffer.madvise(mmap.MADV_HUGEPAGE)
        data = np.frombuffer(buffer, dtype=np.float32).reshape(dim, columns)
        return cls(data=data, rows=rows)
