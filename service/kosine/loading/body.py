"""The body of an .npy in bounded pieces of native float32, whatever its dtype and byte order.

One pass in file order, through two buffers that are used again and again: the memory it takes does not grow
with the file.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kosine.errors import LoadCode, LoadError, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from kosine.loading.layout import MatrixPlan
    from kosine.loading.pace import Pace
    from kosine.loading.source import Reader

__all__ = ("CHUNK_BYTES", "Piece", "check_cancelled", "read_chunks", "read_pieces", "rectangles")

CHUNK_BYTES = 8 * 2**20
_SLICE_BYTES = 2**19
"""Of a chunk, hashed within a third of a millisecond."""


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
    pace: Pace | None = None,
) -> Generator[Piece, None, None]:
    """Every byte of the file goes to `sink` once, in order; the body also comes back piece by piece.

    What does not fit a float32 becomes an infinity. Items of a row-major body are never torn apart.
    `progress` gets the bytes read so far. LoadError `cancelled` at FETCH once `cancelled()` is true, and
    whatever the reader raises.
    """
    itemsize = plan.dtype.itemsize
    least = plan.dim if plan.order == "row_major" else 1
    cuts = list(rectangles(*plan.physical_shape, limit=max(least, chunk_bytes // max(itemsize, 4))))
    sizes = (height * width * itemsize for _, _, height, width in cuts)
    chunks = read_chunks(
        reader, plan.data_offset, sizes, sink=sink, cancelled=cancelled, progress=progress, pace=pace
    )
    with closing(chunks):
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
    pace: Pace | None = None,
) -> Generator[memoryview, None, None]:
    """The file from `offset` on in chunks of `sizes` bytes, each good until the next; see `read_pieces`.

    Reading and hashing take as long as decoding, and none of them needs the interpreter: one chunk is read,
    then the one before it hashed, beside whoever decodes that, so nobody may write to it. With a `pace` it is
    hashed slice by slice. Whoever reads closes it, so that its thread has ended whatever was raised.
    """
    hashed = sink if pace is None else partial(_sink_slices, sink, pace)
    header = memoryview(bytearray(offset))
    reader.read_into(0, header)
    sink(header)
    memory = (_Memory(), _Memory())
    spans = enumerate(_spans(offset, sizes))
    with ThreadPoolExecutor(1, thread_name_prefix="kosine-sink") as beside:
        ahead = _begun(beside, reader, spans, memory)
        sunk: Future[object] | None = None
        while ahead is not None:
            check_cancelled(cancelled)
            # Into the memory of the chunk before this one, which is hashed by then: there is one thread.
            current, ahead = ahead, _begun(beside, reader, spans, memory)
            chunk, stop = current.result()
            if sunk is not None:
                sunk.result()
            sunk = beside.submit(hashed, chunk)
            progress(stop)
            yield chunk
        if sunk is not None:
            sunk.result()


def _sink_slices(sink: Callable[[memoryview], object], pace: Pace, chunk: memoryview) -> None:
    for start in range(0, len(chunk), _SLICE_BYTES):
        pace.breathe()
        sink(chunk[start : start + _SLICE_BYTES])
    pace.breathe()


def _spans(offset: int, sizes: Iterator[int]) -> Iterator[tuple[int, int]]:
    for size in sizes:
        yield offset, size
        offset += size


class _Memory:
    """One buffer, made when it is first filled."""

    def __init__(self) -> None:
        self._bytes = memoryview(b"")

    def filled(self, reader: Reader, offset: int, size: int) -> tuple[memoryview, int]:
        """The chunk, and where it ends."""
        if (lent := reader.lend(offset, size)) is not None:
            return lent, offset + size
        if len(self._bytes) < size:
            self._bytes = memoryview(bytearray(size))
        chunk = self._bytes[:size]
        reader.read_into(offset, chunk)
        return chunk, offset + size


def _begun(
    beside: ThreadPoolExecutor,
    reader: Reader,
    spans: Iterator[tuple[int, tuple[int, int]]],
    memory: tuple[_Memory, ...],
) -> Future[tuple[memoryview, int]] | None:
    """The next chunk, on its way; None after the last."""
    for number, (offset, size) in spans:
        return beside.submit(memory[number % len(memory)].filled, reader, offset, size)
    return None


def check_cancelled(cancelled: Callable[[], bool]) -> None:
    """LoadError `cancelled` at FETCH when the load is no longer wanted."""
    if cancelled():
        raise LoadError(LoadCode.CANCELLED, "the load was cancelled; nothing changed", stage=Stage.FETCH)
