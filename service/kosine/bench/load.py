"""The load itself, as the load process runs it.

Closed loop: a caller asks again when it is answered. Open loop: callers come when they come, and latency
counts from the time a request was due, also when no connection was free or this process was late: a service
that stalls cannot stop the clock by keeping its callers away (coordinated omission).
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from array import array
from collections import deque
from itertools import cycle
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from kosine.bench.alarm import Alarm
from kosine.bench.connection import Connection
from kosine.bench.load_job import Progress, Started
from kosine.bench.records import Records

if TYPE_CHECKING:
    from collections.abc import Callable

    from kosine.bench.load_job import Finished, Job, Target

__all__ = ("run_load",)

_SWEEP_SECONDS = 0.05
_TELL_SECONDS = 0.25
_RECONNECT_SECONDS = 0.05
_HEAD_START = 0.01


async def run_load(target: Target, job: Job, tell: Callable[[Started | Progress], None]) -> Finished:
    """Run `job` against `target`. Raises OSError where a connection cannot be made at the start."""
    load = _ClosedLoop(target, job) if job.arrivals is None else _OpenLoop(target, job, job.arrivals)
    return await load.run(tell)


class _Load(ABC):
    """Implements Owner: keeps the connections, and what became of the requests."""

    def __init__(self, target: Target, job: Job) -> None:
        self._target = target
        self._job = job
        self._records = Records()
        self._next = cycle(array("I", job.order)).__next__
        self._connections: set[Connection] = set()
        self._reconnecting: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._start = 0.0
        self._backlog_high = 0

    @abstractmethod
    def _begin(self) -> None:
        """The load starts at `self._start`, which has come."""

    @abstractmethod
    def _free(self, connection: Connection) -> None:
        """A connection can carry the next request."""

    @abstractmethod
    def _exhausted(self) -> bool:
        """Whether nothing more is to be sent."""

    def _sweep(self, now: float) -> None:
        for connection in [*self._connections]:
            if connection.busy and now - connection.intended > self._job.timeout:
                connection.drop("timeout")

    async def run(self, tell: Callable[[Started | Progress], None]) -> Finished:
        """See `run_load`."""
        try:
            async with asyncio.timeout(self._job.timeout):
                await asyncio.gather(*(self._connect() for _ in range(self._job.connections)))
            self._start = monotonic() + _HEAD_START
            tell(Started(self._start))
            while monotonic() < self._start:  # noqa: ASYNC110  the loop's timers may be early
                await asyncio.sleep(self._start - monotonic())
            cpu = time.process_time()
            self._begin()
            await self._watch(tell)
            cpu = time.process_time() - cpu
            return self._records.finished(cpu_seconds=cpu, stopped=monotonic(), backlog=self._backlog_high)
        finally:
            await self._close()

    async def _watch(self, tell: Callable[[Started | Progress], None]) -> None:
        """Give up what is overdue, and tell how it goes, until all is over."""
        told = monotonic()
        while not self._over.is_set():
            self._end_if_done()
            try:
                await asyncio.wait_for(self._over.wait(), timeout=_SWEEP_SECONDS)
            except TimeoutError:
                now = monotonic()
                self._sweep(now)
                if now - told >= _TELL_SECONDS:
                    told = now
                    tell(Progress(self._records.answered, self._records.failed))

    def _end_if_done(self) -> None:
        if self._exhausted() and not any(connection.busy for connection in self._connections):
            self._over.set()

    def answered(self, connection: Connection, done: float, body: bytes, timing: bytes) -> None:
        """See Owner."""
        self._records.ok(connection, done, body, timing)
        if not connection.closing:
            self._free(connection)

    def refused(self, connection: Connection, done: float, outcome: str) -> None:
        """See Owner."""
        self._records.failure(connection, done, outcome)
        if not connection.closing:
            self._free(connection)

    def lost(self, connection: Connection, done: float, outcome: str | None) -> None:
        """See Owner."""
        self._connections.discard(connection)
        if outcome is not None:
            self._records.failure(connection, done, outcome)
        if not self._exhausted():
            task = asyncio.get_running_loop().create_task(self._reconnect())
            self._reconnecting.add(task)
            task.add_done_callback(self._reconnecting.discard)

    async def _connect(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self._target.requests, self), self._target.host, self._target.port
        )
        self._connections.add(connection)
        return connection

    async def _reconnect(self) -> None:
        while not self._exhausted():
            try:
                connection = await self._connect()
            except OSError:
                await asyncio.sleep(_RECONNECT_SECONDS)
            else:
                self._free(connection)
                return

    async def _close(self) -> None:
        for task in self._reconnecting:
            task.cancel()
        for connection in [*self._connections]:
            connection.drop("closed")
        await asyncio.sleep(0)


class _ClosedLoop(_Load):
    def __init__(self, target: Target, job: Job) -> None:
        super().__init__(target, job)
        self._stop = inf
        self._left = inf if job.limit is None else job.limit

    def _begin(self) -> None:
        self._stop = self._start + self._job.seconds
        for connection in [*self._connections]:
            self._free(connection)

    def _free(self, connection: Connection) -> None:
        if self._exhausted():
            self._end_if_done()
            return
        self._left -= 1
        connection.ask(self._next())

    def _exhausted(self) -> bool:
        return self._left <= 0 or monotonic() >= self._stop


class _OpenLoop(_Load):
    def __init__(self, target: Target, job: Job, arrivals: bytes) -> None:
        super().__init__(target, job)
        self._arrivals = deque(array("d", arrivals))
        self._due: deque[float] = deque()
        self._idle: list[Connection] = []
        self._alarm: Alarm | None = None

    def _begin(self) -> None:
        self._arrivals = deque(self._start + seconds for seconds in self._arrivals)
        self._idle = [*self._connections]
        self._alarm = Alarm(self._arrive)
        self._arrive()

    def _arrive(self) -> None:
        now = monotonic()
        arrivals = self._arrivals
        while arrivals and arrivals[0] <= now:
            self._due.append(arrivals.popleft())
            if self._idle:
                self._send(self._idle.pop())
        self._backlog_high = max(self._backlog_high, len(self._due))
        if arrivals and self._alarm is not None:
            self._alarm.set(arrivals[0])

    def _send(self, connection: Connection) -> None:
        connection.ask(self._next(), self._due.popleft())

    def _free(self, connection: Connection) -> None:
        if self._due:
            self._send(connection)
        else:
            self._idle.append(connection)
            if not self._arrivals:
                self._end_if_done()

    def lost(self, connection: Connection, done: float, outcome: str | None) -> None:
        """See Owner."""
        if connection in self._idle:
            self._idle.remove(connection)
        super().lost(connection, done, outcome)

    def _sweep(self, now: float) -> None:
        super()._sweep(now)
        while self._due and now - self._due[0] > self._job.timeout:
            self._records.failure(_Unsent(self._next(), self._due.popleft(), now), now, "timeout")

    def _exhausted(self) -> bool:
        return not self._arrivals and not self._due

    async def _close(self) -> None:
        if self._alarm is not None:
            self._alarm.close()
        await super()._close()


class _Unsent:
    """Implements Exchange for a request that never found a free connection."""

    def __init__(self, request: int, intended: float, sent: float) -> None:
        self.request = request
        self.intended = intended
        self.sent = sent
