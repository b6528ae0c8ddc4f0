"""How a load reads an object: a window of ranges in flight, and memory that is used again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kosine.errors import LoadCode, LoadError
from kosine.loading.storage.io_thread import IoThread
from kosine.loading.storage.objects import ObjectFacts, ObjectName
from kosine.loading.storage.remote import RemoteStorage, Transfer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from kosine.loading.storage.remote import RemoteReader

HEAD = 64 * 2**10
BLOCK = 1000
CONTENT = random.Random(7).randbytes(HEAD + 5 * BLOCK)
NAME = ObjectName("vectors", "a.npy")
URI = "s3://vectors/a.npy"


class Store:
    """An `ObjectStore` of one object, whose range at `late_from` is held back."""

    def __init__(self, *, late_from: int | None) -> None:
        self._late_from = late_from
        self._late = asyncio.Event()
        self.asked: list[int] = []

    async def head(self, name: ObjectName) -> ObjectFacts:
        assert name == NAME
        return ObjectFacts(token="1", size=len(CONTENT))  # noqa: S106  an ETag

    @contextlib.asynccontextmanager
    async def get_range(
        self, name: ObjectName, facts: ObjectFacts, *, start: int, stop: int
    ) -> AsyncIterator[Callable[[memoryview], Awaitable[int]]]:
        assert (name, facts.token) == (NAME, "1")
        self.asked.append(start)

        async def read_into(buffer: memoryview) -> int:
            if start == self._late_from:
                await self._late.wait()
            piece = CONTENT[start : min(stop, start + len(buffer))]
            buffer[: len(piece)] = piece
            return len(piece)

        yield read_into

    async def close(self) -> None:
        pass

    async def let_go(self) -> None:
        """Answer the range that was held back, and let it be written."""
        self._late.set()
        for _ in range(10):
            await asyncio.sleep(0)


async def made(*, late_from: int | None = None) -> Store:
    return Store(late_from=late_from)


@contextlib.contextmanager
def opened(
    *, late_from: int | None = None, parallel: int = 3
) -> Iterator[tuple[RemoteReader, Store, IoThread]]:
    """A reader of blocks of 1,000 bytes."""
    io = IoThread()
    store = io.run(made(late_from=late_from))
    transfer = Transfer(draw=lambda: 0.0, parallel=parallel, block_bytes=BLOCK)
    storage = RemoteStorage(store, io=io, transfer=transfer)
    try:
        with storage.open(URI, NAME, storage.fingerprint(URI, NAME)) as reader:
            yield reader, store, io
    finally:
        io.close(store.close())


def test_memory_that_a_late_answer_still_writes_to_is_not_used_again() -> None:
    """A reader that jumps over a block in flight gets the bytes of where it jumped to."""
    with opened(late_from=HEAD + BLOCK) as (reader, store, io):
        for block in (0, 2, 3):
            assert block_of(CONTENT, block)[:1] == read(reader, block, size=1)
        io.run(store.let_go())
        assert block_of(CONTENT, 3) == read(reader, 3, size=BLOCK)
        assert [HEAD + block * BLOCK for block in range(5)] == store.asked[1:]


@pytest.mark.parametrize("parallel", [1, 2, 3])
@pytest.mark.parametrize("size", [BLOCK, 700, 499])
def test_what_is_lent_stays_until_the_next_but_one(size: int, parallel: int) -> None:
    """Blocks are the spans that are lent, each byte is asked for once, and the memory of two stays."""
    spans = [(start, min(size, len(CONTENT) - start)) for start in range(128, len(CONTENT), size)]
    with opened(parallel=parallel) as (reader, store, _):
        before, before_start = memoryview(b""), 0
        for start, count in spans:
            lent = reader.lend(start, count)
            assert lent is not None
            assert CONTENT[start : start + count] == bytes(lent)
            assert CONTENT[before_start : before_start + len(before)] == bytes(before)
            before, before_start = lent, start
        beyond_head = [max(start, HEAD) for start, count in spans if start + count > HEAD]
        assert [0, *beyond_head] == store.asked


def test_memory_that_is_lent_is_used_again() -> None:
    """A load takes what `buffer_bytes` tells, however long the object is."""
    with opened(parallel=2) as (reader, _, _io):
        lent = [reader.lend(start, 100) for start in range(HEAD, HEAD + 3000, 100)]
        assert 3 >= len({np.frombuffer(each or b"", np.uint8).ctypes.data for each in lent})


def test_what_lies_in_no_block_is_not_lent() -> None:
    """It is longer than one, or on both sides of a border: then it is copied, from the same blocks."""
    with opened() as (reader, store, _):
        assert reader.lend(HEAD, BLOCK + 1) is None
        assert reader.lend(HEAD, BLOCK) is not None
        assert reader.lend(HEAD + BLOCK - 5, 10) is None
        assert block_of(CONTENT, 1) == read(reader, 1, size=BLOCK)
        assert CONTENT[HEAD + 2500 :][:300] == bytes(reader.lend(HEAD + 2500, 300) or b"")
        assert block_of(CONTENT, 4) == read(reader, 4, size=BLOCK)
        assert [HEAD + block * BLOCK for block in range(5)] == store.asked[1:]


def test_what_is_past_the_end_is_not_lent() -> None:
    """It is told as for a read: the object is shorter than its header says."""
    with opened() as (reader, _, _io), pytest.raises(LoadError) as refused:
        reader.lend(len(CONTENT) - 5, 6)
    assert LoadCode.CHANGED_WHILE_READING is refused.value.code


def block_of(content: bytes, number: int) -> bytes:
    return content[HEAD + number * BLOCK :][:BLOCK]


def read(reader: RemoteReader, block: int, *, size: int) -> bytes:
    buffer = memoryview(bytearray(size))
    reader.read_into(HEAD + block * BLOCK, buffer)
    return bytes(buffer)
