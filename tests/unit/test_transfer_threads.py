"""Threads that requests wait in: used again, and with somebody for whatever they bring."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING

import pytest

from kosine.loading.storage.transfer_threads import TransferThreads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def transfer_threads() -> AsyncIterator[TransferThreads]:
    made = TransferThreads()
    yield made
    await made.close(within=10)


def running() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "kosine-transfer"]


async def test_one_call_after_the_other_takes_one_thread() -> None:
    """Calls that overlap have a thread each, which is kept for the next."""
    async with transfer_threads() as threads:
        names = [await threads.run(threading.get_ident) for _ in range(5)]
        assert 1 == len(set(names))
        both = threading.Barrier(2)
        assert {0, 1} == {*await asyncio.gather(threads.run(both.wait), threads.run(both.wait))}


async def test_a_failure_is_raised_where_it_is_waited_for() -> None:
    """And the thread goes on."""
    async with transfer_threads() as threads:
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0)
        assert 1 == await threads.run(lambda: 1)


async def test_what_comes_too_late_is_disposed_of() -> None:
    """A connection that is made after nobody wants it is not leaked."""
    go, late, loop = threading.Event(), asyncio.Queue[str](), asyncio.get_running_loop()

    def call() -> str:
        go.wait(10)
        return "answer"

    def dispose(answer: str) -> None:
        loop.call_soon_threadsafe(late.put_nowait, answer)

    async with transfer_threads() as threads:
        waiting = asyncio.create_task(threads.run(call, late=dispose))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go.set()
        async with asyncio.timeout(10):
            assert "answer" == await late.get()


async def test_what_comes_while_the_waiting_is_cancelled_is_disposed_of() -> None:
    """The result is there, whoever waited never sees it."""
    done, late = threading.Event(), list[str]()

    def call() -> str:
        done.set()
        return "answer"

    async with transfer_threads() as threads:
        waiting = asyncio.create_task(threads.run(call, late=late.append))
        await asyncio.sleep(0)
        assert done.wait(10)
        while waiting.cancelling() == 0:
            waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        deadline = time.monotonic() + 10
        while not late and time.monotonic() < deadline:
            await asyncio.sleep(0.001)
    assert ["answer"] == late


def test_what_comes_when_the_loop_has_ended_is_disposed_of() -> None:
    """A service that stops leaves no connection to the garbage collector."""
    go, late = threading.Event(), threading.Event()

    async def stop() -> None:
        threads = TransferThreads()
        waiting = asyncio.create_task(threads.run(lambda: go.wait(10), late=lambda _: late.set()))
        await asyncio.sleep(0)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        await threads.close(within=0)

    asyncio.run(stop())
    go.set()
    assert late.wait(10)


async def test_threads_that_are_closed_end() -> None:
    """Those that wait at once, the others with their call."""
    go = threading.Event()
    async with transfer_threads() as threads:
        await threads.run(lambda: None)
        last = asyncio.create_task(threads.run(lambda: go.wait(10)))
        await asyncio.sleep(0)
        await threads.close(within=0)
        go.set()
        assert await last
    assert [] == running()
