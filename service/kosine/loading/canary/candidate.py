"""Asks the engine that was built and serves nobody yet, a few queries at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kosine.engines.filters import RowFilter
from kosine.errors import LoadCode, LoadError, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from kosine.engines.engine import Engine
    from kosine.loading.canary.golden import GoldenQuery
    from kosine.serving.item_ids import ItemIds

__all__ = ("Candidate",)

_TOGETHER = 8
"""Queries of one call: the device has others to serve."""


class Candidate:
    """A version that is not published. Every call blocks; LoadError `cancelled` when nobody wants it."""

    def __init__(self, engine: Engine, ids: ItemIds, *, cancelled: Callable[[], bool]) -> None:
        self._engine = engine
        self._cancelled = cancelled
        self.ids = ids
        self.rows = engine.rows
        self.max_k = engine.max_k

    def neighbours(self, rows: Sequence[int], k: int) -> list[list[Any]]:
        """Ids of the `k` items nearest to the item in each row, itself left out, best first."""
        numbers = np.asarray(rows, np.int32)
        return self._search(
            self._engine.take(numbers), [_without(row) for row in numbers], [k] * len(numbers)
        )

    def answers(self, queries: Sequence[GoldenQuery]) -> list[list[Any] | None]:
        """The ids that each finds, best first; None where it names an item that is not there."""
        rows = [-1 if each.id is None else int(self.ids.find([each.id], field="id")[0]) for each in queries]
        known = [at for at, each in enumerate(queries) if each.embedding is not None or rows[at] >= 0]
        vectors = np.empty((len(known), self._engine.dim), np.float32)
        for place, at in enumerate(known):
            given = queries[at].embedding
            vectors[place] = self._engine.take(np.array([rows[at]]))[0] if given is None else given
        filters = [_without(rows[at]) if rows[at] >= 0 else None for at in known]
        found = self._search(vectors, filters, [queries[at].k for at in known])
        answers: list[list[Any] | None] = [None] * len(queries)
        for at, names in zip(known, found, strict=True):
            answers[at] = names
        return answers

    def _search(
        self, vectors: NDArray[np.float32], filters: Sequence[RowFilter | None], ks: Sequence[int]
    ) -> list[list[Any]]:
        found: list[list[Any]] = []
        for first in range(0, len(vectors), _TOGETHER):
            if self._cancelled():
                raise LoadError(LoadCode.CANCELLED, "the load was given up", stage=Stage.CANARY)
            part = slice(first, first + _TOGETHER)
            rows, scores = self._engine.search_filtered(vectors[part], max(ks[part]), filters[part])
            for each, scored, k in zip(rows, scores, ks[part], strict=True):
                # -inf ends a filtered answer; NaN is a dot product that overflows, which has no order.
                found.append(self.ids.names(each[:k][scored[:k] > -np.inf]))
        return found


def _without(row: int) -> RowFilter:
    return RowFilter(excluded=np.array([row], np.int32))
