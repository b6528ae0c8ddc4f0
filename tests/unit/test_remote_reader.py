"""How a load reads an object: a window of ranges in flight, and memory that is used again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

from kosine.loading.storage.io_thread import IoThread
from kosine.loading.storage.objects import ObjectFacts, ObjectName
from kosine.loading.storage.remote import RemoteStorage, Transfer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from kosine.loading.storage.remote import RemoteReader

HEAD = 64 * 2**10
BLOCK = 1000
CONTENT = random.Random(7).randbytes(HEAD + 5 * BLOCK)
NAME = ObjectName("vectors", "a.npy")
URI = "s3://vectors/a.npy"


class Store:
    """An `ObjectStore` of one object, whose range at `late_from` is held back."""

    def __init__(self, *, late_from: int) -> None:
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


async def made(*, late_from: int) -> Store:
    return Store(late_from=late_from)


def test_memory_that_a_late_answer_still_writes_to_is_not_used_again() -> None:
    """A reader that jumps over a block in flight gets the bytes of where it jumped to."""
    io = IoThread()
    store = io.run(made(late_from=HEAD + BLOCK))
    storage = RemoteStorage(store, io=io, transfer=Transfer(draw=lambda: 0.0, parallel=3, block_bytes=BLOCK))
    try:
        with storage.open(URI, NAME, storage.fingerprint(URI, NAME)) as reader:
            for block in (0, 2, 3):
                assert block_of(CONTENT, block)[:1] == read(reader, block, size=1)
            io.run(store.let_go())
            assert block_of(CONTENT, 3) == read(reader, 3, size=BLOCK)
        assert [HEAD + block * BLOCK for block in range(5)] == store.asked[1:]
    finally:
        io.close(store.close())


def block_of(content: bytes, number: int) -> bytes:
    return content[HEAD + number * BLOCK :][:BLOCK]


def read(reader: RemoteReader, block: int, *, size: int) -> bytes:
    buffer = memoryview(bytearray(size))
    reader.read_into(HEAD + block * BLOCK, buffer)
    return bytes(buffer)
