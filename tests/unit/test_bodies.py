"""How content is received: into the memory it is for, by reads that can be called off."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

import pytest
import urllib3

from kosine.loading.storage.bodies import Body
from kosine.loading.storage.transfer_threads import TransferThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def threads() -> Iterator[TransferThreads]:
    made = TransferThreads()
    yield made
    asyncio.run(made.close(within=10))


@contextlib.contextmanager
def answered(
    threads: TransferThreads,
    sent: bytes,
    *,
    length: int,
    then: Callable[[socket.socket], object] = lambda _: None,
) -> Iterator[Body]:
    """A body of `length` bytes whose server sends `sent`, does `then`, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listening, urllib3.PoolManager() as pool:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(
                    b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\n\r\n" % length + sent
                )
                then(connection)

        server = threading.Thread(target=serve)
        server.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        response = pool.request(
            "GET", url, preload_content=False, retries=False, timeout=10, enforce_content_length=False
        )
        try:
            yield Body(response, threads)
        finally:
            server.join()


async def test_a_body_comes_in_the_buffers_it_is_read_into(threads: TransferThreads) -> None:
    """Each read fills its buffer; past the end it gives nothing."""
    with answered(threads, b"0123456789", length=10) as body:
        first, rest, more = (memoryview(bytearray(size)) for size in (4, 6, 3))
        assert [4, 6, 0] == [await body.read_into(buffer) for buffer in (first, rest, more)]
        assert b"0123456789" == bytes(first) + bytes(rest)


async def test_what_came_before_a_cut_is_told(threads: TransferThreads) -> None:
    """A read of a body that ends early gives what there was, so that nothing is fetched twice."""
    with answered(threads, b"0123", length=10) as body:
        buffer = memoryview(bytearray(10))
        assert 4 == await body.read_into(buffer)
        assert 0 == await body.read_into(buffer[4:])


@pytest.mark.parametrize("pieces", [(b"0123",), (b"0123", b"45", b"67")])
async def test_what_came_before_a_failure_is_told(
    threads: TransferThreads, pieces: tuple[bytes, ...]
) -> None:
    """A connection that is reset loses no byte that had arrived."""
    arrived = threading.Event()

    def go_on(connection: socket.socket) -> None:
        for piece in pieces[1:]:
            connection.sendall(piece)
        arrived.wait(10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    sent = b"".join(pieces)
    with answered(threads, pieces[0], length=10, then=go_on) as body:
        buffer = bytearray(10)
        reading = asyncio.create_task(body.read_into(memoryview(buffer)))
        while bytes(buffer[: len(sent)]) != sent:
            await asyncio.sleep(0.001)
        arrived.set()
        assert len(sent) == await reading


async def test_a_read_that_is_called_off_frees_thread_and_connection(threads: TransferThreads) -> None:
    """A server that sends no more sees the connection closed, and the thread takes the next call."""
    closed = threading.Event()

    def wait_for_the_end(connection: socket.socket) -> None:
        connection.settimeout(10)
        assert b"" == connection.recv(1)
        closed.set()

    with answered(threads, b"01", length=10, then=wait_for_the_end) as body:
        reading = asyncio.create_task(body.read_into(memoryview(bytearray(10))))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await threads.run(lambda: closed.wait(10))


async def test_a_read_that_was_done_when_it_was_called_off_keeps_no_connection(
    threads: TransferThreads,
) -> None:
    """More was to come, and nobody is there any more to close the body."""
    dropped: list[bytes] = []
    with answered(threads, b"01", length=10, then=lambda one: dropped.append(one.recv(1))) as body:
        buffer = bytearray(2)
        reading = asyncio.create_task(body.read_into(memoryview(buffer)))
        await asyncio.sleep(0)
        deadline = time.monotonic() + 10
        while buffer != b"01" and time.monotonic() < deadline:
            pass  # the loop does not get to know
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert [b""] == dropped


async def test_a_body_that_nobody_reads_is_dropped(threads: TransferThreads) -> None:
    """An answer that is refused by its head keeps no connection."""
    dropped: list[bytes] = []
    with answered(threads, b"01", length=10, then=lambda one: dropped.append(one.recv(1))) as body:
        body.close()
    assert [b""] == dropped
