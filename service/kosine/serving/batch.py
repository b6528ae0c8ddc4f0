"""The rows of one engine call: who waits for them, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import numpy as np

from kosine.errors import NotFinite
from kosine.serving.isolation import search_isolated

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kosine.engines.engine import Engine

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

    __slots__ = ("abandoned", "deadline", "enqueued", "future", "k", "query")

    def __init__(
        self,
        query: NDArray[np.float32],
        k: int,
        deadline: float,
        abandoned: Callable[[], bool],
        future: Outcome,
    ) -> None:
        self.query = query
        self.k = k
        self.deadline = deadline
        self.abandoned = abandoned
        self.future = future
        self.enqueued = perf_counter()


class Batch:
    """Rows on their way through the device thread. `run` must not raise: it keeps failures by row."""

    __slots__ = (
        "_engine",
        "_ids",
        "engine_seconds",
        "failed",
        "ids",
        "queue",
        "scores",
        "started",
        "waiting",
    )

    def __init__(
        self, queue: BatchQueue, waiting: list[Waiting], engine: Engine, ids: NDArray[np.generic] | None
    ) -> None:
        self.queue = queue
        self.waiting = waiting
        self.failed: dict[int, Exception] = {}
        self.ids: list[list[int]] | list[list[str]] = []
        self.scores: list[list[float]] = []
        self.started = 0.0
        self.engine_seconds = 0.0
        self._engine = engine
        self._ids = ids

    def run(self) -> None:
        """Score the rows and turn row numbers into ids; on the device thread."""
        engine = self._engine
        self.started = perf_counter()
        queries = np.concatenate([one.query for one in self.waiting]).reshape(len(self.waiting), engine.dim)
        k = min(max(one.k for one in self.waiting), engine.rows)
        found = search_isolated(engine.search, queries, k, width=k)
        self.engine_seconds = perf_counter() - self.started
        self.failed = found.failed | _overflowed(found.scores, found.failed)
        self.ids = (found.rows if self._ids is None else self._ids[found.rows]).tolist()
        self.scores = found.scores.tolist()

    def fail_all(self, error: Exception) -> None:
        """Whatever broke outside `run`'s own care belongs to every row."""
        self.failed = dict.fromkeys(range(len(self.waiting)), error)


def _overflowed(scores: NDArray[np.float32], failed: dict[int, Exception]) -> dict[int, Exception]:
    if np.isfinite(scores).all():
        return {}
    detail = "a score of this query overflows float32; scale the query down"
    rows = np.flatnonzero(~np.isfinite(scores).all(axis=1)).tolist()
    return {row: NotFinite(detail) for row in rows if row not in failed}
