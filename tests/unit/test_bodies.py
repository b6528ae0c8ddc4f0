"""How content is received: threads that are used again, and reads that can be called off."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest
import urllib3

from kosine.loading.storage.bodies import Body, TransferThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def threads() -> Iterator[TransferThreads]:
    made = TransferThreads()
    yield made
    made.close()


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


async def test_a_body_that_nobody_reads_is_dropped(threads: TransferThreads) -> None:
    """An answer that is refused by its head keeps no connection."""
    dropped: list[bytes] = []
    with answered(threads, b"01", length=10, then=lambda one: dropped.append(one.recv(1))) as body:
        body.close()
    assert [b""] == dropped


async def test_one_call_after_the_other_takes_one_thread(threads: TransferThreads) -> None:
    """Calls that overlap have a thread each, which is kept for the next."""
    names = [await threads.run(threading.get_ident) for _ in range(5)]
    assert 1 == len(set(names))
    both = threading.Barrier(2)
    assert 2 == len(
        {await task for task in [asyncio.ensure_future(threads.run(both.wait)) for _ in range(2)]}
    )


async def test_a_failure_is_raised_where_it_is_waited_for(threads: TransferThreads) -> None:
    """And the thread goes on."""
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    assert 1 == await threads.run(lambda: 1)


async def test_what_comes_too_late_is_disposed_of(threads: TransferThreads) -> None:
    """A connection that is made after nobody wants it is not leaked."""
    go, late = threading.Event(), asyncio.Queue[str]()

    def call() -> str:
        go.wait(10)
        return "answer"

    waiting = asyncio.create_task(threads.run(call, late=late.put_nowait))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    go.set()
    async with asyncio.timeout(10):
        assert "answer" == await late.get()
