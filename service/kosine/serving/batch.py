"""The rows of one engine call: who waits for them, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kosine.errors import NotFinite
from kosine.serving.isolation import search_isolated

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kosine.engines.engine import Engine
    from kosine.serving.isolation import RowsFound
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
        self.started = 0.0
        self.engine_seconds = 0.0
        self._engine = engine
        self._ids = ids

    def run(self) -> None:
        """Score the rows and turn row numbers into ids; on the device thread."""
        engine = self._engine
        self.started = perf_counter()
        k = min(max(one.k for one in self.waiting), engine.rows)
        plain = all(one.options is None for one in self.waiting)
        if plain:
            queries = np.concatenate([one.query for one in self.waiting])
            found = search_isolated(engine.search, queries.reshape(-1, engine.dim), k, width=k)
        else:
            found = _search_with_options(engine, self.waiting, k)
        self.engine_seconds = perf_counter() - self.started
        self.failed = found.failed | _overflowed(found.scores, found.failed)
        self.ids = self._ids.names(found.rows)
        self.scores = found.scores.tolist()
        if not plain:
            self._finish(found)

    def _finish(self, found: RowsFound) -> None:
        """What only rows with options need."""
        for row, one in enumerate(self.waiting):
            if one.options is None or row in self.failed:
                continue
            least = -np.inf if one.options.min_score is None else one.options.min_score
            scores = found.scores[row, : one.k]
            left = int(np.count_nonzero((scores >= least) & (scores > -np.inf)))
            self.ids[row], self.scores[row] = self.ids[row][:left], self.scores[row][:left]
            if one.options.with_embeddings:
                self.embeddings[row] = self._engine.take(found.rows[row, :left])

    def fail_all(self, error: Exception) -> None:
        """Whatever broke outside `run`'s own care belongs to every row."""
        self.failed = dict.fromkeys(range(len(self.waiting)), error)


def _search_with_options(engine: Engine, waiting: list[Waiting], k: int) -> RowsFound:
    """Rows of every kind in one call; one without a vector of its own is looked up first."""
    queries = np.empty((len(waiting), engine.dim), np.float32)
    filters = [one.options.filter if one.options is not None else None for one in waiting]
    for row, one in enumerate(waiting):
        stored = one.options.stored if one.options is not None else None
        queries[row] = one.query if stored is None else engine.take(np.array([stored]))[0]
    if any(filters):
        return search_isolated(engine.search_filtered, queries, k, filters, width=k)
    return search_isolated(engine.search, queries, k, width=k)


def _overflowed(scores: NDArray[np.float32], failed: dict[int, Exception]) -> dict[int, Exception]:
    """Rows whose scores are no numbers; -inf is what ends a filtered answer."""
    if np.isfinite(scores).all():
        return {}
    detail = "a score of this query overflows float32; scale the query down"
    bad = ~np.isfinite(scores) & (scores != -np.inf)
    rows = np.flatnonzero(bad.any(axis=1)).tolist()
    return {row: NotFinite(detail) for row in rows if row not in failed}
