"""The rows of one engine call: who waits for them, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kosine.engines.pages import Place
from kosine.serving.answered_apart import answer_apart, overflow
from kosine.serving.isolation import RowsFound, search_isolated

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kosine.engines.engine import Engine
    from kosine.engines.pages import Page
    from kosine.serving.item_ids import ItemIds
    from kosine.serving.options import RowOptions

__all__ = ("Answer", "Batch", "BatchQueue", "Outcome", "Waiting")


class BatchQueue(Protocol):
    """Where batches come from and go back to: what a dispatcher knows of a batcher."""

    @property
    def queued_rows(self) -> int:
        """Rows that wait for a batch."""

    def take(self) -> Batch | None:
        """The next batch, if the policy says so; the device is free."""

    def deliver(self, batch: Batch) -> None:
        """A batch came back; on the event loop."""


@dataclass(slots=True)
class Answer:
    """Best first, with the times that became this query's Server-Timing."""

    ids: list[int] | list[str]
    scores: list[float]
    queue_seconds: float
    engine_seconds: float
    rows: int
    """Rows of the batch it was computed in."""
    embeddings: NDArray[np.float32] | None = None
    """[n, dim] of the items, where they were asked for."""
    last: Place | None = None
    """Of a page that is not the last: where it ends."""


class Outcome(Protocol):
    """Who waits for one row: an `asyncio.Future`, or one row of several that are waited for together."""

    def done(self) -> bool:
        """Whether nobody waits any more."""

    def set_result(self, answer: Answer, /) -> None:
        """The row was answered."""

    def set_exception(self, error: Exception, /) -> None:
        """The row failed."""


class Waiting:
    """One query in the queue or on the device."""

    __slots__ = ("abandoned", "deadline", "enqueued", "future", "k", "options", "query")

    def __init__(
        self,
        query: NDArray[np.float32] | None,
        k: int,
        deadline: float,
        abandoned: Callable[[], bool],
        future: Outcome,
        options: RowOptions | None = None,
    ) -> None:
        """`query` [dim] is None where `options` name a stored row."""
        self.query = query
        self.k = k
        self.deadline = deadline
        self.abandoned = abandoned
        self.future = future
        self.options = options
        self.enqueued = perf_counter()


class Batch:
    """Rows on their way through the device thread. `run` must not raise: it keeps failures by row."""

    __slots__ = (
        "_engine",
        "_ids",
        "embeddings",
        "engine_seconds",
        "failed",
        "ids",
        "last",
        "queue",
        "scores",
        "started",
        "waiting",
    )

    def __init__(self, queue: BatchQueue, waiting: list[Waiting], engine: Engine, ids: ItemIds) -> None:
        self.queue = queue
        self.waiting = waiting
        self.failed: dict[int, Exception] = {}
        self.ids: list[Any] = []
        self.scores: list[list[float]] = []
        self.embeddings: dict[int, NDArray[np.float32]] = {}
        self.last: dict[int, Place] = {}
        self.started = 0.0
        self.engine_seconds = 0.0
        self._engine = engine
        self._ids = ids

    def run(self) -> None:
        """Score the rows and turn row numbers into ids; on the device thread."""
        engine = self._engine
        self.started = perf_counter()
        plain = all(one.options is None for one in self.waiting)
        apart: dict[int, Page] = {}
        if plain:
            k = min(max(one.k for one in self.waiting), engine.rows)
            queries = np.concatenate([one.query for one in self.waiting])
            found = search_isolated(engine.search, queries.reshape(-1, engine.dim), k, width=k)
        else:
            found, apart = _search_with_options(engine, self.waiting)
        self.engine_seconds = perf_counter() - self.started
        self.failed = found.failed | _overflowed(found.scores, found.failed)
        self.ids = self._ids.names(found.rows)
        self.scores = found.scores.tolist()
        if not plain:
            self._finish(found, apart)

    def _finish(self, found: RowsFound, apart: dict[int, Page]) -> None:
        """What only rows with options need."""
        there = found.scores > -np.inf
        if there.all() and all(one.options is None or one.options.only_filters for one in self.waiting):
            return
        counts = np.count_nonzero(there, axis=1).tolist()
        for row, one in enumerate(self.waiting):
            if one.options is None or row in self.failed:
                continue
            if row in apart:
                rows = self._finish_apart(row, apart[row])
            else:
                left = min(counts[row], one.k)
                if one.options.min_score is not None:
                    left = int(np.count_nonzero(found.scores[row, :left] >= one.options.min_score))
                if left < len(self.scores[row]):
                    self.ids[row], self.scores[row] = self.ids[row][:left], self.scores[row][:left]
                rows = found.rows[row, :left]
            if one.options.with_embeddings:
                self.embeddings[row] = self._engine.take(rows)

    def _finish_apart(self, row: int, page: Page) -> NDArray[np.int32]:
        self.ids[row], self.scores[row] = self._ids.names(page.rows), page.scores.tolist()
        if page.more:
            self.last[row] = Place(self.scores[row][-1], int(page.rows[-1]))
        return page.rows

    def fail_all(self, error: Exception) -> None:
        """Whatever broke outside `run`'s own care belongs to every row."""
        self.failed = dict.fromkeys(range(len(self.waiting)), error)


def _search_with_options(engine: Engine, waiting: list[Waiting]) -> tuple[RowsFound, dict[int, Page]]:
    """Rows of every kind, and those answered apart; one without a vector of its own is looked up first."""
    queries = _queries(engine, waiting)
    apart = {
        row: (queries[row], one.k, one.options)
        for row, one in enumerate(waiting)
        if one.options is not None and one.options.answered_apart
    }
    if not apart:
        return _search_together(engine, queries, waiting), {}
    together = [row for row in range(len(waiting)) if row not in apart]
    outcomes = answer_apart(engine, apart)
    failed = {row: error for row, error in outcomes.items() if isinstance(error, Exception)}
    found = _search_together(engine, queries[together], [waiting[row] for row in together])
    found = found.spread(together, rows=len(waiting), failed=failed)
    return found, {row: page for row, page in outcomes.items() if not isinstance(page, Exception)}


def _queries(engine: Engine, waiting: list[Waiting]) -> NDArray[np.float32]:
    """[B, dim]; one without a vector of its own is looked up, all of them at once."""
    stored = [
        one.options.stored for one in waiting if one.options is not None and one.options.stored is not None
    ]
    found = iter(engine.take(np.array(stored)) if stored else ())
    vectors = [next(found) if one.query is None else one.query for one in waiting]
    return np.concatenate(vectors).reshape(-1, engine.dim)


def _search_together(engine: Engine, queries: NDArray[np.float32], waiting: list[Waiting]) -> RowsFound:
    k = min(max((one.k for one in waiting), default=1), engine.rows)
    if not waiting:
        return RowsFound(rows=np.zeros((0, k), np.int32), scores=np.zeros((0, k), np.float32), failed={})
    filters = [one.options.filter if one.options is not None else None for one in waiting]
    if any(each is not None for each in filters):
        return search_isolated(engine.search_filtered, queries, k, filters, width=k)
    return search_isolated(engine.search, queries, k, width=k)


def _overflowed(scores: NDArray[np.float32], failed: dict[int, Exception]) -> dict[int, Exception]:
    """Rows whose scores are no numbers; -inf is what ends a filtered answer."""
    if np.isfinite(scores).all():
        return {}
    bad = ~np.isfinite(scores) & (scores != -np.inf)
    rows = np.flatnonzero(bad.any(axis=1)).tolist()
    return {row: overflow() for row in rows if row not in failed}
