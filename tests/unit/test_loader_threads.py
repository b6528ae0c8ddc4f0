"""Blocking work off the loop: a result, a failure, or `Overdue`, and nothing that comes late is lost."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from kosine.loading.threads import LoaderThreads, Overdue


class Held:
    """A call that blocks until it is released; `let_go` is told of what nobody waited for."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.released = threading.Event()
        self.disposed = threading.Event()
        self.in_thread = ""

    def __call__(self) -> str:
        self.entered.set()
        self.released.wait(10)
        return "late"

    def let_go(self, result: str) -> None:
        assert "late" == result
        self.in_thread = threading.current_thread().name
        self.disposed.set()


async def test_a_call_runs_in_a_thread_named_after_its_index() -> None:
    """Law 5: whoever looks at the threads of the process sees what is being loaded."""
    threads = LoaderThreads(slots=1)

    name = await threads.run(lambda: threading.current_thread().name, name="items", within=5)

    assert "kosine-loader-items" == name


@pytest.mark.parametrize(("nice", "added"), [(0, 0), (1, 1), (19, 19)])
async def test_a_loading_thread_steps_back_and_nobody_else(nice: int, added: int) -> None:
    """The niceness of a thread is its own; past the least urgent there is nothing."""
    own = os.getpriority(os.PRIO_PROCESS, 0)

    there = await LoaderThreads(slots=1, nice=nice).run(
        lambda: os.getpriority(os.PRIO_PROCESS, 0), name="items", within=5
    )

    assert min(19, own + added) == there
    assert own == os.getpriority(os.PRIO_PROCESS, 0)


async def test_what_a_call_raises_is_raised() -> None:
    """A failure is the caller's."""
    with pytest.raises(ZeroDivisionError):
        await LoaderThreads(slots=1).run(lambda: 1 // 0, name="items", within=5)


async def test_a_call_that_hangs_is_left_behind_and_its_result_let_go() -> None:
    """N17: the caller goes on at once; what the thread brings afterwards is freed, off the loop."""
    threads, held = LoaderThreads(slots=1), Held()
    with pytest.raises(Overdue):
        await threads.run(held, name="items", within=0.05, late=held.let_go)
    assert (1, 0) == (threads.left_behind("items"), threads.left_behind("users"))

    held.released.set()
    assert await asyncio.to_thread(held.disposed.wait, 5)
    assert "kosine-loader-items" == held.in_thread
    assert 0 == threads.left_behind("items")


async def test_a_hung_call_that_fails_in_the_end_is_forgotten() -> None:
    """Nobody waits for its exception, and nothing complains of that."""
    threads, released = LoaderThreads(slots=1), threading.Event()

    def fail_late() -> None:
        released.wait(5)
        raise ZeroDivisionError

    with pytest.raises(Overdue):
        await threads.run(fail_late, name="items", within=0.05)
    released.set()
    async with asyncio.timeout(5):
        while threads.left_behind("items"):
            await threads.run(lambda: None, name="others", within=5)


async def test_a_waiter_that_is_cancelled_leaves_nothing_behind() -> None:
    """As if the call had hung: its result is let go."""
    threads, held = LoaderThreads(slots=1), Held()
    waiting = asyncio.ensure_future(threads.run(held, name="items", within=5, late=held.let_go))
    await asyncio.to_thread(held.entered.wait, 5)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    held.released.set()
    assert await asyncio.to_thread(held.disposed.wait, 5)


def test_a_result_that_comes_after_the_loop_is_let_go() -> None:
    """A process that stops while a load hangs does not keep its matrix, nor print a traceback."""
    held = Held()

    async def hang() -> None:
        with pytest.raises(Overdue):
            await LoaderThreads(slots=1).run(held, name="items", within=0.05, late=held.let_go)

    asyncio.run(hang())
    held.released.set()

    assert held.disposed.wait(5)


async def test_slots_are_held_in_the_order_they_were_asked_for() -> None:
    """No index starves while others reload all the time."""
    threads, order = LoaderThreads(slots=1), []

    async def load(number: int) -> None:
        async with threads.slot():
            order.append(number)
            await threads.run(lambda: None, name="items", within=5)

    await asyncio.gather(*(load(number) for number in range(5)))

    assert [0, 1, 2, 3, 4] == order
