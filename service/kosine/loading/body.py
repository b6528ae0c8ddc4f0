"""The body of an .npy in bounded pieces of native float32, whatever its dtype and byte order.

One pass in file order, through one buffer that is used again and again: the memory it takes does not grow
with the file.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kosine.errors import LoadCode, LoadError, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from kosine.loading.layout import MatrixPlan
    from kosine.loading.source import Reader

__all__ = ("CHUNK_BYTES", "Piece", "check_cancelled", "read_chunks", "read_pieces", "rectangles")

CHUNK_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Piece:
    """A rectangle of the body, seen as the C-order matrix `MatrixPlan.physical_shape`.

    `values` is good until the next piece is read.
    """

    top: int
    left: int
    values: NDArray[np.float32]


def rectangles(height: int, width: int, *, limit: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut a C-order matrix into (top, left, height, width), each contiguous and of at most `limit` elements.

    >>> list(rectangles(3, 4, limit=8))
    [(0, 0, 2, 4), (2, 0, 1, 4)]
    >>> list(rectangles(2, 4, limit=3))
    [(0, 0, 1, 3), (0, 3, 1, 1), (1, 0, 1, 3), (1, 3, 1, 1)]
    """
    if width <= limit:
        step = limit // width
        yield from ((top, 0, min(step, height - top), width) for top in range(0, height, step))
        return
    for top in range(height):
        yield from ((top, left, 1, min(limit, width - left)) for left in range(0, width, limit))


def read_pieces(
    reader: Reader,
    plan: MatrixPlan,
    *,
    sink: Callable[[memoryview], object],
    cancelled: Callable[[], bool],
    progress: Callable[[int], None],
    chunk_bytes: int = CHUNK_BYTES,
) -> Iterator[Piece]:
    """Every byte of the file goes to `sink` once, in order; the body also comes back piece by piece.

    What does not fit a float32 becomes an infinity. Items of a row-major body are never torn apart.
    `progress` gets the bytes read so far. LoadError `cancelled` at FETCH once `cancelled()` is true, and
    whatever the reader raises.
    """
    itemsize = plan.dtype.itemsize
    least = plan.dim if plan.order == "row_major" else 1
    cuts = list(rectangles(*plan.physical_shape, limit=max(least, chunk_bytes // max(itemsize, 4))))
    sizes = (height * width * itemsize for _, _, height, width in cuts)
    chunks = read_chunks(reader, plan.data_offset, sizes, sink=sink, cancelled=cancelled, progress=progress)
    for (top, left, height, width), chunk in zip(cuts, chunks, strict=True):
        values = np.frombuffer(chunk, dtype=plan.dtype).reshape(height, width)
        with np.errstate(over="ignore", invalid="ignore"):
            decoded = values.astype(np.float32, copy=False)
        yield Piece(top, left, decoded)


def read_chunks(
    reader: Reader,
    offset: int,
    sizes: Iterator[int],
    *,
    sink: Callable[[memoryview], object],
    cancelled: Callable[[], bool],
    progress: Callable[[int], None],
) -> Iterator[memoryview]:
    """The file from `offset` on in chunks of `sizes` bytes, each good until the next; see `read_pieces`.

    Hashing takes as long as decoding, and neither needs the interpreter: the sink runs beside whoever takes
    the chunk, so nobody may write to it.
    """
    header = memoryview(bytearray(offset))
    reader.read_into(0, header)
    sink(header)
    buffer = memoryview(bytearray(0))
    with ThreadPoolExecutor(1, thread_name_prefix="kosine-sink") as beside:
        for size in sizes:
            check_cancelled(cancelled)
            if len(buffer) < size:
                buffer = memoryview(bytearray(size))
            chunk = buffer[:size]
            reader.read_into(offset, chunk)
            sunk = beside.submit(sink, chunk)
            offset += size
            progress(offset)
            yield chunk
            sunk.result()


def check_cancelled(cancelled: Callable[[], bool]) -> None:
    """LoadError `cancelled` at FETCH when the load is no longer wanted."""
    if cancelled():
        raise LoadError(LoadCode.CANCELLED, "the load was cancelled; nothing changed", stage=Stage.FETCH)
