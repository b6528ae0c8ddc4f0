"""The operator's queue in virtual time: what coalesces, what waits, what is never held up."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import looptime
import pytest
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kosine_operator.work_queue import Backoff, Finished, Pace, WorkQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

FAST = 1000.0
"""Looks per second of a queue whose rate is not what a test is about."""

virtual_time = pytest.mark.looptime(start=0)


class Looks:
    """A scripted worker: what it was asked, when, and what came of it."""

    def __init__(self) -> None:
        self.begun: list[tuple[float, str]] = []
        self.finished: list[Finished[str]] = []
        self.script: dict[str, Callable[[], Awaitable[float | None]]] = {}

    async def __call__(self, key: str) -> float | None:
        """Do what the script says of `key`; nothing else takes any time."""
        self.begun.append((asyncio.get_running_loop().time(), key))
        script = self.script.get(key)
        return None if script is None else await script()

    def times(self, key: str) -> list[float]:
        """When looks at `key` began."""
        return [when for when, what in self.begun if what == key]


def taking(seconds: float, *, then: float | None = None) -> Callable[[], Awaitable[float | None]]:
    """A look that lasts."""

    async def look() -> float | None:
        await asyncio.sleep(seconds)
        return then

    return look


def failing(error: Exception | None = None) -> Callable[[], Awaitable[float | None]]:
    """A look that fails at once."""

    async def look() -> float | None:
        raise error or RuntimeError("no")

    return look


@contextlib.asynccontextmanager
async def queue_of(looks: Looks, **changes: Any) -> AsyncIterator[WorkQueue[str]]:
    """A running queue without jitter."""
    usual: dict[str, Any] = {
        "workers": 2,
        "limit": 100.0,
        "pace": Pace(per_second=FAST, burst=int(FAST)),
        "backoff": Backoff(first=1.0, longest=8.0, jitter=0.0),
        "rng": random.Random(0),
        "finished": looks.finished.append,
    }
    queue: WorkQueue[str] = WorkQueue(looks, **(usual | changes))
    running = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        await queue.close(grace=1000.0)
        await running


async def at(when: float) -> None:
    """Move virtual time on."""
    await asyncio.sleep(when - asyncio.get_running_loop().time())


@virtual_time
async def test_many_adds_of_a_key_are_one_look() -> None:
    """Events coalesce: each only says that something is to be looked at."""
    looks = Looks()
    async with queue_of(looks) as queue:
        for _ in range(100):
            queue.add("a")
        await at(1)

    assert [(0.0, "a")] == looks.begun


@virtual_time
async def test_what_comes_during_a_look_is_looked_at_once_more() -> None:
    """A look may have read what the event changed before it changed, so it is repeated, once."""
    looks = Looks()
    looks.script["a"] = taking(5.0)
    async with queue_of(looks) as queue:
        queue.add("a")
        for when in (1, 2, 3):
            await at(when)
            queue.add("a")
        await at(20)

    assert [0.0, 5.0] == looks.times("a")


@virtual_time
async def test_a_key_is_never_looked_at_twice_at_once() -> None:
    """Two workers are free, and the second look still waits for the first."""
    looks = Looks()
    looks.script["a"] = taking(5.0)
    async with queue_of(looks) as queue:
        queue.add("a")
        await at(1)
        queue.add("a")
        await at(4)
        assert [0.0] == looks.times("a")


@virtual_time
async def test_a_failing_key_backs_off_exponentially_to_a_bound() -> None:
    """1, 2, 4, 8, 8 ... seconds after failure 1, 2, 3, 4, 5 ..."""
    looks = Looks()
    looks.script["a"] = failing()
    async with queue_of(looks) as queue:
        queue.add("a")
        await at(40)

    assert [0.0, 1.0, 3.0, 7.0, 15.0, 23.0, 31.0, 39.0] == looks.times("a")
    assert [1, 2, 3] == [look.failures for look in looks.finished[:3]]


@virtual_time
async def test_jitter_only_shortens() -> None:
    """Keys that failed together come back one by one, none later than the back-off says."""
    looks = Looks()
    keys = [f"key-{n}" for n in range(20)]
    looks.script = dict.fromkeys(keys, failing())
    backoff = Backoff(first=1.0, longest=1.0, jitter=0.2)
    async with queue_of(looks, backoff=backoff) as queue:
        for key in keys:
            queue.add(key)
        await at(1)

    second = [looks.times(key)[1] for key in keys]
    assert 20 == len(set(second))
    assert 0.8 <= min(second) < max(second) <= 1.0


@virtual_time
async def test_success_forgets_the_failures() -> None:
    """The next failure of a key that was well backs off from the start."""
    looks = Looks()
    looks.script["a"] = failing()
    async with queue_of(looks) as queue:
        queue.add("a")
        await at(2)
        del looks.script["a"]
        await at(10)
        looks.script["a"] = failing()
        queue.add("a")
        await at(11.5)

    assert [0.0, 1.0, 3.0, 10.0, 11.0] == looks.times("a")


@virtual_time
async def test_an_event_ends_a_back_off() -> None:
    """Whoever corrects what was wrong does not wait for the back-off."""
    looks = Looks()
    looks.script["a"] = failing()
    async with queue_of(looks) as queue:
        queue.add("a")
        await at(3.5)
        queue.add("a")
        await at(4)

    assert [0.0, 1.0, 3.0, 3.5] == looks.times("a")


@virtual_time
async def test_a_server_that_says_how_long_is_waited_for() -> None:
    """Retry-After is the least, not the back-off."""
    looks = Looks()
    looks.script["a"] = failing()
    async with queue_of(looks, at_least=lambda _error: 30.0) as queue:
        queue.add("a")
        await at(60.5)

    assert [0.0, 30.0, 60.0] == looks.times("a")


@virtual_time
async def test_a_look_may_ask_for_another() -> None:
    """Whatever is still pending is looked at again after the seconds that the worker names."""
    looks = Looks()
    looks.script["a"] = taking(0.0, then=2.0)
    async with queue_of(looks) as queue:
        queue.add("a")
        await at(5)

    assert [0.0, 2.0, 4.0] == looks.times("a")


@virtual_time
async def test_the_earliest_of_several_wishes_counts() -> None:
    """A later wish never puts off an earlier one."""
    looks = Looks()
    async with queue_of(looks) as queue:
        queue.add("a", after=5.0)
        queue.add("a", after=1.0)
        queue.add("a", after=9.0)
        await at(20)

    assert [1.0] == looks.times("a")


@virtual_time
async def test_broken_keys_hold_up_nobody() -> None:
    """With every other key failing for ever, a good one is looked at the moment it is added."""
    looks = Looks()
    looks.script = {f"broken-{n}": failing() for n in range(50)}
    async with queue_of(looks) as queue:
        for key in looks.script:
            queue.add(key)
        for when in (0.5, 10.25, 33.75):
            await at(when)
            queue.add("good")
        await at(50)

    assert [0.5, 10.25, 33.75] == looks.times("good")


@virtual_time
async def test_a_look_that_hangs_is_ended_and_fails() -> None:
    """A worker comes back after the limit, whatever it waited for."""
    looks = Looks()
    looks.script = {"a": taking(10_000.0), "b": taking(10_000.0)}
    async with queue_of(looks, limit=30.0) as queue:
        queue.add("a")
        queue.add("b")
        queue.add("good")
        await at(30.5)

    assert [30.0] == looks.times("good")
    assert [TimeoutError, TimeoutError] == [type(look.error) for look in looks.finished[:2]]


@virtual_time
async def test_no_more_workers_than_allowed() -> None:
    """Keys wait in the order they came."""
    looks = Looks()
    looks.script = {key: taking(10.0) for key in "abcd"}
    async with queue_of(looks) as queue:
        for key in "abcd":
            queue.add(key)
        await at(15)

    assert [(0.0, "a"), (0.0, "b"), (10.0, "c"), (10.0, "d")] == looks.begun


@virtual_time
async def test_the_rate_bounds_a_flood() -> None:
    """A burst at once, the rest evenly; an idle queue saves up no more than the burst."""
    looks = Looks()
    async with queue_of(looks, workers=100, pace=Pace(per_second=2.0, burst=3)) as queue:
        await at(1000)
        for n in range(6):
            queue.add(str(n))
        await at(1010)

    assert [0.0, 0.0, 0.0, 0.5, 1.0, 1.5] == [when - 1000.0 for when, _ in looks.begun]


@virtual_time
async def test_the_oldest_key_tells_how_far_behind_the_queue_is() -> None:
    """Keys that are due or being looked at count; those that wait for their time do not."""
    looks = Looks()
    looks.script = {key: taking(10.0) for key in "abc"}
    async with queue_of(looks) as queue:
        queue.add("later", after=500.0)
        assert (0, 0.0) == (queue.depth, queue.oldest())
        for key in "abc":
            queue.add(key)
        await at(4)
        assert (3, 4.0) == (queue.depth, queue.oldest())
        await at(21)
        assert (0, 0.0) == (queue.depth, queue.oldest())


@virtual_time
async def test_what_waited_is_told() -> None:
    """`Finished` has the wait and the work apart."""
    looks = Looks()
    looks.script = {key: taking(10.0) for key in "abc"}
    async with queue_of(looks) as queue:
        for key in "abc":
            queue.add(key)
        await at(25)

    assert [(0.0, 10.0), (0.0, 10.0), (10.0, 10.0)] == [
        (look.waited, look.seconds) for look in looks.finished
    ]


@virtual_time
async def test_closing_lets_running_looks_end_and_begins_none() -> None:
    """What was begun is finished within the grace; the rest is for whoever comes next."""
    looks = Looks()
    looks.script = {key: taking(10.0) for key in "abc"}
    async with queue_of(looks) as queue:
        for key in "abc":
            queue.add(key)
        await at(1)
        await queue.close(grace=60.0)
        queue.add("d")

    assert ["a", "b"] == [look.key for look in looks.finished]
    assert [(0.0, "a"), (0.0, "b")] == looks.begun


@virtual_time
async def test_closing_cancels_what_outlasts_the_grace() -> None:
    """Stopping takes no longer than it was given."""
    looks = Looks()
    looks.script["a"] = taking(10_000.0)
    async with queue_of(looks) as queue:
        queue.add("a")
        await at(1)
        await queue.close(grace=5.0)

        assert 6.0 == asyncio.get_running_loop().time()
    assert [] == looks.finished


class QueueMachine(RuleBasedStateMachine):
    """Any interleaving of adds, ends and time, against the laws of the queue."""

    WORKERS = 2
    KEYS = strategies.sampled_from("abcd")

    def __init__(self) -> None:
        super().__init__()
        self.loop = looptime.new_event_loop(start=0)
        self.running: dict[str, asyncio.Future[float | None]] = {}
        self.unseen: set[str] = set()
        """Keys with an add that no look has followed yet."""
        self.failures: Counter[str] = Counter()
        self.blocked_until: dict[str, float] = {}
        """Keys that nobody asked for since they failed: when they may come back."""
        self.queue = self.loop.run_until_complete(self._open())
        self.task = self.loop.create_task(self.queue.run())
        self._settle()

    async def _open(self) -> WorkQueue[str]:
        return WorkQueue(
            self._look,
            workers=self.WORKERS,
            limit=1e9,
            pace=Pace(per_second=FAST, burst=int(FAST)),
            backoff=Backoff(first=1.0, longest=16.0, jitter=0.0),
            rng=random.Random(0),
            finished=lambda _: None,
        )

    async def _look(self, key: str) -> float | None:
        assert key not in self.running, "two looks at one key"
        assert len(self.running) < self.WORKERS, "more looks than workers"
        assert self.loop.time() >= self.blocked_until.pop(key, 0.0), "came back before its back-off"
        self.unseen.discard(key)
        self.running[key] = self.loop.create_future()
        return await self.running[key]

    def _settle(self) -> None:
        async def turns() -> None:
            for _ in range(10):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    @rule(key=KEYS)
    def add(self, key: str) -> None:
        """Somebody says: look again."""
        self.unseen.add(key)
        self.blocked_until.pop(key, None)
        self.queue.add(key)
        self._settle()

    @precondition(lambda self: self.running)
    @rule(data=strategies.data(), again=strategies.sampled_from([None, 0.0, 3.0]))
    def end(self, data: strategies.DataObject, again: float | None) -> None:
        """A look ends well."""
        key = data.draw(strategies.sampled_from(sorted(self.running)))
        self.failures[key] = 0
        self.running.pop(key).set_result(again)
        self._settle()

    @precondition(lambda self: self.running)
    @rule(data=strategies.data())
    def fail(self, data: strategies.DataObject) -> None:
        """A look fails."""
        key = data.draw(strategies.sampled_from(sorted(self.running)))
        self.failures[key] += 1
        if key not in self.unseen:
            self.blocked_until[key] = self.loop.time() + min(16.0, 2.0 ** (self.failures[key] - 1))
        self.running.pop(key).set_exception(RuntimeError("no"))
        self._settle()

    @rule(seconds=strategies.sampled_from([0.5, 1.0, 7.0, 20.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self._settle()

    @invariant()
    def nothing_is_lost(self) -> None:
        """Whatever was added is looked at as soon as a worker is free, once its running look has ended."""
        waiting = self.unseen - self.running.keys()
        assert not waiting or len(self.running) == self.WORKERS

    @invariant()
    def nothing_failed_is_forgotten(self) -> None:
        """A key comes back once its back-off is over, as soon as a worker is free."""
        overdue = [key for key, when in self.blocked_until.items() if when < self.loop.time()]
        assert not overdue or len(self.running) == self.WORKERS

    def teardown(self) -> None:
        """Leave no task behind."""
        for look in self.running.values():
            look.set_result(None)
        self.loop.run_until_complete(self.queue.close(grace=0.0))
        self.loop.run_until_complete(self.task)
        self.loop.close()


QueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestQueue = QueueMachine.TestCase


def test_the_pace_in_the_long_run_is_the_rate() -> None:
    """However the looks come, no window of time sees more than the burst and its share."""
    rng, now = random.Random(7), 0.0
    pace, begun = Pace(per_second=10.0, burst=5), []
    for _ in range(500):
        now = max(now + rng.expovariate(30.0), pace.free_at())
        pace.take(now)
        begun.append(now)

    for first, last in itertools.combinations(range(0, 500, 7), 2):
        assert last - first + 1 <= 5 + 10.0 * (begun[last] - begun[first]) + 1e-6
