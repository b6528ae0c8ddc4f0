"""Collects concurrent queries of ONE version into one engine call.

Lives on the event loop; only `Batch.run` runs elsewhere, on the device thread. Guarantees: a batch never
mixes versions (the batcher belongs to one), the queue is bounded when a query enters it, a query that nobody
waits for is not computed, a row that fails fails alone, and every query that entered is answered once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from kosine.errors import Abandoned, DeadlineExceeded, EngineFailed, NotFinite, Overloaded, ShuttingDown
from kosine.serving.batch import Answer, Batch, Waiting
from kosine.serving.breaker import Breaker
from kosine.serving.flush_policy import Linger, QueueState, decide, expected_rows
from kosine.serving.gathering import Gathered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from kosine.engines.engine import Engine
    from kosine.metrics import IndexMetrics
    from kosine.serving.dispatcher import Dispatcher
    from kosine.serving.item_ids import ItemIds
    from kosine.serving.options import RowOptions
    from kosine.settings import BatchSettings

__all__ = ("Batcher",)

RETRY_AFTER = 1
"""Seconds a refused caller should wait: queues here drain in milliseconds."""


class Batcher:
    """The queue of one version."""

    def __init__(
        self,
        *,
        engine: Engine,
        ids: ItemIds,
        settings: BatchSettings,
        dispatcher: Dispatcher,
        metrics: IndexMetrics,
    ) -> None:
        self.breaker = Breaker()
        self._engine: Engine | None = engine
        self._ids = ids
        self._row_bytes = engine.dim * 4
        self.configure(settings)
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Waiting] = deque()
        self._held_at_most = 0
        """Bytes of the filters in the queue, and of those that have left it since they were summed."""
        self._on_device: Batch | None = None
        self._linger = Linger.OFF
        self._linger_timer: asyncio.Handle | None = None
        self._expected = 1
        self._gathered_while_busy = False
        self._draining = False
        self._sweep_timer: asyncio.TimerHandle | None = None

    @property
    def answers_text(self) -> bool:
        """Whether ids are text; else they are whole numbers."""
        return self._ids.are_text

    @property
    def queued_rows(self) -> int:
        """Rows that wait for a batch."""
        return len(self._queue)

    def configure(self, settings: BatchSettings) -> None:
        """Take other limits from the next query on; `queue_limit` are the rows that may wait."""
        self._settings = settings
        self.queue_limit = min(settings.queue_rows, max(1, settings.queue_bytes // self._row_bytes))

    async def search(
        self,
        query: NDArray[np.float32] | None,
        k: int,
        *,
        deadline: float,
        abandoned: Callable[[], bool],
        options: RowOptions | None = None,
    ) -> Answer:
        """The `min(k, rows)` best items for `query` [dim], checked by `to_query`; None: `options` name it.

        `deadline` is in the loop's time; `abandoned()` tells whether the client has gone. Raises Overloaded,
        DeadlineExceeded, EngineFailed, NotFinite (a dot product overflows), ShuttingDown or Abandoned.
        """
        self._admit(1, deadline, 0 if options is None else options.nbytes)
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._queue.append(Waiting(query, k, deadline, abandoned, future, options))
        self._queued(deadline)
        return await future

    async def search_all(
        self,
        queries: Iterable[tuple[NDArray[np.float32] | None, RowOptions | None]],
        k: int,
        *,
        deadline: float,
        abandoned: Callable[[], bool],
    ) -> list[Answer | Exception]:
        """As `search` for several, perhaps in several batches; a row that fails is an exception in its place.

        They are admitted together or not at all. Raises as `search` does where that concerns all of them.
        """
        rows = list(queries)
        if not rows:
            return []
        self._admit(len(rows), deadline, sum(options.nbytes for _, options in rows if options is not None))
        gathered = Gathered(len(rows), self._loop.create_future())
        for (query, options), outcome in zip(rows, gathered.rows(), strict=True):
            self._queue.append(Waiting(query, k, deadline, abandoned, outcome, options))
        self._queued(deadline)
        return await gathered.future

    def _queued(self, deadline: float) -> None:
        """Somebody new waits."""
        if self._dispatcher.is_busy:
            self._gathered_while_busy = True
        if self._sweep_timer is None or deadline < self._sweep_timer.when():
            self._sweep_at(deadline)
        self._dispatcher.wake(self)

    def _admit(self, rows: int, deadline: float, more_bytes: int) -> None:
        """Make sure of room for `rows` queries with `more_bytes` of filters."""
        now = self._loop.time()
        if self._engine is None:
            raise ShuttingDown("the service is stopping; ask another replica", retry_after=RETRY_AFTER)
        if now >= deadline:
            raise DeadlineExceeded("the deadline had passed when the query arrived")
        room = self.queue_limit - rows
        if len(self._queue) > room and not self._forget_the_dead(room):
            raise Overloaded(
                f"{len(self._queue)} queries are waiting of at most {self.queue_limit}, and this would add "
                f"{rows}; retry later or ask less often",
                retry_after=RETRY_AFTER,
                queue_rows=self.queue_limit,
            )
        if more_bytes:
            self._admit_bytes(rows, more_bytes)
        if not self.breaker.allows(now):
            raise EngineFailed("the engine fails on every query; retry later", retry_after=RETRY_AFTER)

    def _admit_bytes(self, rows: int, more: int) -> None:
        """Only for those who bring filters: all others are bounded by their number."""
        limit = int(self._settings.queue_bytes)
        rest = more + (len(self._queue) + rows) * self._row_bytes
        if self._held_at_most + rest > limit:
            # Summed seldom: with many waiting it takes longer than reading a query.
            self._held_at_most = sum(one.options.nbytes for one in self._queue if one.options is not None)
        need = self._held_at_most + rest
        if need > limit:
            raise Overloaded(
                f"what waits would take {need} bytes with these filters, of at most {limit}; "
                "retry later, or name fewer ids",
                retry_after=RETRY_AFTER,
                queue_bytes=limit,
            )
        self._held_at_most += more

    def _forget_the_dead(self, room: int) -> bool:
        """Drop queries nobody waits for; whether no more than `room` are left."""
        self._queue = deque(self._alive(self._queue))
        return len(self._queue) <= room

    def _alive(self, waiting: Iterable[Waiting]) -> list[Waiting]:
        now = self._loop.time()
        return [one for one in waiting if not self._dead(one, now)]

    def _dead(self, one: Waiting, now: float) -> bool:
        """Settle a query that is not worth computing."""
        if one.future.done():
            return True
        if one.abandoned():
            self._metrics.dropped_abandoned.inc()
            one.future.set_exception(Abandoned("the client closed its connection"))
            return True
        if now >= one.deadline:
            self._metrics.dropped_deadline.inc()
            one.future.set_exception(DeadlineExceeded("the deadline passed before the answer was there"))
            return True
        return False

    def take(self) -> Batch | None:
        """Form a batch if the policy says so; the device must be free. Called by the dispatcher."""
        reason = decide(
            QueueState(
                queued=len(self._queue),
                max_rows=self._settings.max_rows,
                linger=self._linger,
                expected=self._expected,
                gathered_while_busy=self._gathered_while_busy,
                draining=self._draining,
            )
        )
        if reason is None or self._engine is None:
            return None
        chosen = self._choose()
        self._end_linger()
        self._gathered_while_busy = False
        if not chosen:
            return None
        self._metrics.batches(reason).inc()
        self._on_device = Batch(self, chosen, self._engine, self._ids)
        return self._on_device

    def _choose(self) -> list[Waiting]:
        now = self._loop.time()
        chosen: list[Waiting] = []
        while self._queue and len(chosen) < self._settings.max_rows:
            one = self._queue.popleft()
            if not self._dead(one, now):
                chosen.append(one)
        return chosen

    def deliver(self, batch: Batch) -> None:
        """Answer every caller of a batch that came back; called by the dispatcher on the loop."""
        self._on_device = None
        rows = len(batch.waiting)
        for position, one in enumerate(batch.waiting):
            queued = batch.started - one.enqueued
            self._metrics.queue_seconds.observe(queued)
            if one.future.done():
                continue
            error = batch.failed.get(position)
            if error is not None:
                one.future.set_exception(_for_caller(error))
                continue
            ids, scores = batch.ids[position], batch.scores[position]
            if one.k < len(scores):
                ids, scores = ids[: one.k], scores[: one.k]
            answer = Answer(ids, scores, queued, batch.engine_seconds, rows)
            if batch.embeddings:
                answer.embeddings = batch.embeddings.get(position)
            if batch.last:
                answer.last = batch.last.get(position)
            one.future.set_result(answer)
        self._metrics.engine_seconds.observe(batch.engine_seconds)
        self._metrics.batch_rows.observe(rows)
        self.breaker.record(good=_any_good(batch), now=self._loop.time())
        self._begin_linger(answered=rows)

    def _begin_linger(self, *, answered: int) -> None:
        self._end_linger()
        if not self._settings.linger or self._draining:
            return
        self._expected = expected_rows(
            answered=answered, queued=len(self._queue), max_rows=self._settings.max_rows
        )
        self._linger = Linger.RUNNING
        # Behind those who were just answered: until their answers are sent, none of them can come back.
        self._linger_timer = self._loop.call_soon(self._time_linger)

    def _time_linger(self) -> None:
        self._linger_timer = self._loop.call_later(self._settings.linger, self._linger_over)

    def _linger_over(self) -> None:
        self._linger_timer = None
        if self._queue:
            self._linger = Linger.OVER
            self._dispatcher.wake(self)
        else:
            self._linger = Linger.OFF

    def _end_linger(self) -> None:
        self._linger = Linger.OFF
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None

    def _sweep_at(self, when: float) -> None:
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        self._sweep_timer = self._loop.call_at(when, self._sweep)

    def _sweep(self) -> None:
        """Answer 504 on time, also while the device is busy or hangs; one timer for the whole queue."""
        self._sweep_timer = None
        self._queue = deque(self._alive(self._queue))
        on_device = self._alive(self._on_device.waiting) if self._on_device else []
        pending = [one.deadline for one in (*self._queue, *on_device)]
        if pending:
            self._sweep_at(min(pending))

    def drain(self) -> None:
        """The version is being retired: nobody new will come, so nothing waits for a linger any more."""
        self._draining = True
        self._end_linger()
        if self._queue:
            self._dispatcher.wake(self)

    def close(self) -> Engine | None:
        """Answer whoever still waits with ShuttingDown; hand the engine to the caller to close."""
        self._draining = True
        self._end_linger()
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        on_device = self._on_device.waiting if self._on_device else []
        for one in (*self._queue, *on_device):
            if not one.future.done():
                one.future.set_exception(
                    ShuttingDown("the service is stopping; ask another replica", retry_after=RETRY_AFTER)
                )
        self._queue.clear()
        engine, self._engine = self._engine, None
        return engine


def _any_good(batch: Batch) -> bool:
    """A row that failed by its own fault (an overflowing score) proves a working engine as well."""
    engine_faults = sum(not isinstance(error, NotFinite) for error in batch.failed.values())
    return engine_faults < len(batch.waiting)


def _for_caller(error: Exception) -> Exception:
    if isinstance(error, NotFinite):
        return error
    failed = EngineFailed("the engine failed on this query; it may work on a retry", retry_after=RETRY_AFTER)
    failed.__cause__ = error
    return failed
