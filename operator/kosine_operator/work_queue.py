"""One keyed queue between everything that says "look again" and the one function that looks.

Guarantees: a key is worked on by one worker at a time; whatever is added while it is being worked on is
looked at once more; many adds of one key cost one look. A key that fails comes back after an exponential
back-off of its own with jitter, and neither its failures nor its waiting hold up another key; only running
work takes one of the workers, and none keeps it longer than `limit`. A rate bounds how many looks begin per
second, so that a flood of keys does not become a flood of requests. No exception ends the queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

__all__ = ("Backoff", "Finished", "Pace", "WorkQueue")

K = TypeVar("K", bound=Hashable)
K_co = TypeVar("K_co", bound=Hashable, covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long a failing key waits, in seconds: doubling from `first` to `longest`.

    >>> [Backoff(first=0.5, longest=60.0).after(failures) for failures in (1, 2, 3, 8, 1000)]
    [0.5, 1.0, 2.0, 60.0, 60.0]
    """

    first: float = 0.5
    longest: float = 60.0
    jitter: float = 0.2
    """Up to this share is taken off at random, so that keys which failed together do not return together."""

    def after(self, failures: int) -> float:
        """Seconds after so many failures in a row, without jitter."""
        return min(self.longest, self.first * 2.0 ** min(failures - 1, 20))


class Pace:
    """At most `per_second` looks begin in the long run, and `burst` of them at once."""

    def __init__(self, *, per_second: float, burst: int) -> None:
        self._interval = 1.0 / per_second
        self._slack = self._interval * (burst - 1)
        self._next = -self._slack
        """When the next look would begin if all of them were spread evenly."""

    def free_at(self) -> float:
        """From when one more may begin."""
        return self._next - self._slack

    def take(self, now: float) -> None:
        """One more begins."""
        self._next = max(self._next, now) + self._interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Generic[K_co]):
    """One look at a key, for logs and metrics."""

    key: K_co
    waited: float
    """Seconds from being due to being looked at."""
    seconds: float
    error: Exception | None
    failures: int
    """In a row, this one included."""
    again: float | None
    """Seconds until it is looked at again of itself."""


@dataclass(slots=True)
class _Entry:
    due: float | None = None
    """When to look next; while a look is running, what comes after it."""
    running_since: float | None = None
    failures: int = 0


def _nothing(_error: Exception) -> float:
    return 0.0


class WorkQueue(Generic[K]):
    """Calls `work(key)`, which returns seconds until it wants to look again of itself, or None.

    `at_least(error)` is the shortest back-off after that error, for servers that say how long. Create and use
    it on the event loop.
    """

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        *,
        workers: int,
        limit: float,
        pace: Pace,
        backoff: Backoff,
        rng: random.Random,
        finished: Callable[[Finished[K]], None],
        at_least: Callable[[Exception], float] = _nothing,
    ) -> None:
        self._work = work
        self._workers = workers
        self._limit = limit
        self._pace = pace
        self._backoff = backoff
        self._rng = rng
        self._finished = finished
        self._at_least = at_least
        self._loop = asyncio.get_running_loop()
        self._entries: dict[K, _Entry] = {}
        self._order = itertools.count()
        self._heap: list[tuple[float, int, K]] = []
        """Due times, some of them outdated; `_Entry.due` is the truth."""
        self._running: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._closing = False

    def add(self, key: K, *, after: float = 0.0) -> None:
        """Look at `key` in `after` seconds or earlier, also when it backs off; after `close` nothing."""
        if not self._closing:
            self._schedule(key, self._entries.setdefault(key, _Entry()), self._loop.time() + after)

    @property
    def depth(self) -> int:
        """Keys that are due or being looked at."""
        return len(self._ages())

    def oldest(self) -> float:
        """Seconds that the slowest key has been due, or being looked at; 0 where there is none."""
        return max(self._ages(), default=0.0)

    async def run(self) -> None:
        """Work until `close`."""
        while not self._closing:
            self._wake.clear()
            until = self._start_due()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._wake.wait()

    async def close(self, *, grace: float) -> None:
        """Begin nothing more; let what runs end within `grace` seconds, then cancel it."""
        self._closing = True
        self._wake.set()
        if self._running:
            _, pending = await asyncio.wait(self._running, timeout=grace)
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    def _ages(self) -> list[float]:
        now = self._loop.time()
        since = (
            entry.due if entry.running_since is None else entry.running_since
            for entry in self._entries.values()
        )
        return [now - begun for begun in since if begun is not None and begun <= now]

    def _schedule(self, key: K, entry: _Entry, when: float) -> None:
        if entry.due is None or when < entry.due:
            entry.due = when
            if entry.running_since is None:
                heapq.heappush(self._heap, (when, next(self._order), key))
                self._wake.set()

    def _start_due(self) -> float | None:
        """Begin whatever may begin now; returns when to try again, None: when something happens."""
        now = self._loop.time()
        while self._heap:
            due, _, key = self._heap[0]
            entry = self._entries.get(key)
            if entry is None or entry.running_since is not None or entry.due != due:
                heapq.heappop(self._heap)
                continue
            if len(self._running) >= self._workers:
                return None
            if (when := max(due, self._pace.free_at())) > now:
                return when
            heapq.heappop(self._heap)
            self._start(key, entry, waited=now - due)
        return None

    def _start(self, key: K, entry: _Entry, *, waited: float) -> None:
        now = self._loop.time()
        self._pace.take(now)
        entry.due, entry.running_since = None, now
        task = self._loop.create_task(self._look(key, entry, waited=waited), name=f"look-{key}")
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._wake.set()

    async def _look(self, key: K, entry: _Entry, *, waited: float) -> None:
        began, error, again = self._loop.time(), None, None
        try:
            async with asyncio.timeout(self._limit):
                again = await self._work(key)
        except Exception as raised:  # noqa: BLE001  whatever it was is this key's alone; `finished` tells it
            error = raised
        now = self._loop.time()
        entry.failures = 0 if error is None else entry.failures + 1
        if error is not None:
            again = self._retry_in(entry.failures, error)
        entry.running_since, due, entry.due = None, entry.due, None
        for when in (due, None if again is None else now + again):
            if when is not None:
                self._schedule(key, entry, when)
        if entry.due is None:
            del self._entries[key]
        self._finished(
            Finished(
                key=key,
                waited=waited,
                seconds=now - began,
                error=error,
                failures=entry.failures,
                again=again,
            )
        )

    def _retry_in(self, failures: int, error: Exception) -> float:
        delay = self._backoff.after(failures) * (1.0 - self._backoff.jitter * self._rng.random())
        return max(delay, self._at_least(error))
