"""The rows of an index in one order for each query, cut into pages. NumPy only.

Rows are ordered by their exact score (`ExactScorer`), best first, ties to the lower row. That order depends
on nothing but the query, the rows and what the query filters by: not on the batch it is in, nor on k. A page
is what comes next behind a place in it, and a place is the score and the number of the last row before. So
pages of one version that follow each other repeat no row and skip none, however deep they lie and whatever
their sizes; and a page costs the same wherever it begins: one product of the query and all rows.

That product is not exact. It only chooses: a row is left aside where the margin of the product proves that
it lies before the place, or behind as many others as are wanted. The rest is scored exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kosine.engines.filters import Way, masks_of, way_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from kosine.engines.exact_scores import ExactScorer
    from kosine.engines.filters import RowFilter

__all__ = ("MORE_KEPT", "MOST_AT_ONCE", "Page", "PageQuery", "Place", "pages_of")

MOST_AT_ONCE = 16
"""Queries whose scores of one tile are in memory together."""

MORE_KEPT = 8192
"""Rows beyond those wanted that may wait until they are scored exactly: near ties."""

_GROUPS_EACH = 8
"""Groups of rows for each row wanted; their best bound the others. More groups leave fewer rows."""

_LEFT_OUT_OR_NOT = np.array([-np.inf, 0], np.float32)


class Place(NamedTuple):
    """Behind a row with this exact score and number."""

    score: float
    row: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PageQuery:
    """What is wanted of the order of one query."""

    k: int
    after: Place | None = None
    """None: from its beginning."""
    filter: RowFilter | None = None
    min_score: float | None = None


class Page(NamedTuple):
    """Rows that follow each other in the order."""

    rows: NDArray[np.int32]
    """[n], at most k."""
    scores: NDArray[np.float32]
    """[n]; all NaN where a dot product may not fit a float32."""
    more: bool
    """Whether anything comes behind them."""


def pages_of(
    asked: Iterable[tuple[ExactScorer, PageQuery]],
    *,
    tiles: Sequence[tuple[int, int]],
    product: Callable[[NDArray[np.float32], int], NDArray[np.float32]],
) -> list[Page]:
    """A page for each query.

    `tiles` are (first row, rows); `product` of units [B, dim] and the number of a tile is [B, columns], and
    its first columns are the scores of those rows.
    """
    pages: list[Page] = []
    left = iter(asked)
    while together := [_Cutter(scorer, query) for scorer, query in islice(left, MOST_AT_ONCE)]:
        reading = [cutter for cutter in together if cutter.needs_products]
        for tile, (first, rows) in enumerate(tiles if reading else ()):
            scores = product(np.stack([cutter.unit for cutter in reading]), tile)
            for cutter, line in zip(reading, scores, strict=True):
                cutter.see(first, line[:rows])
        pages += [cutter.page() for cutter in together]
    return pages


class _Cutter:
    """Goes through the rows once and keeps those that may be on the page.

    Kept scores are those of the product, or exact; either way no farther from exact than the margin.
    """

    def __init__(self, scorer: ExactScorer, query: PageQuery) -> None:
        self.unit = scorer.unit
        self._scorer = scorer
        self._query = query
        self._wanted = query.k + 1
        self._rows = np.empty(0, np.int32)
        self._scores = np.empty(0, np.float32)
        # Everything less is known not to be on the page.
        self._floor = -np.inf if query.min_score is None else query.min_score - scorer.margin
        self._gathered = way_of(query.filter) is Way.GATHERED
        if self._gathered and query.filter is not None:
            rows = query.filter.narrowed()
            self._add(rows, scorer.of(rows))

    @property
    def needs_products(self) -> bool:
        """Whether it must see every row."""
        return not self._gathered and not self._scorer.overflows

    def see(self, first: int, scores: NDArray[np.float32]) -> None:
        """Scores [n] by the product of the rows from `first` on."""
        near = scores >= self._floor
        if self._query.after is not None:
            near &= scores <= np.float32(self._query.after.score) + np.float32(self._scorer.margin)
        if self._query.filter is not None:
            masks, _ = masks_of([self._query.filter], first=first, rows=len(scores), columns=len(scores))
            near &= masks[1]
        if np.count_nonzero(near) > _GROUPS_EACH * self._wanted:
            self._raise_floor(scores, near)
            near &= scores >= self._floor
        columns = np.flatnonzero(near)
        self._add((first + columns).astype(np.int32), scores[columns])

    def _raise_floor(self, scores: NDArray[np.float32], near: NDArray[np.bool_]) -> None:
        """To what as many groups as rows are wanted reach: each has a row that comes before all below."""
        if self._query.after is not None:
            near = near & (scores < self._query.after.score - 2 * self._scorer.margin)
        groups = _GROUPS_EACH * self._wanted
        # A sum, since a choice takes a branch for each row: up to four times as long.
        counted = scores + _LEFT_OUT_OR_NOT.take(near.view(np.int8), mode="clip")
        best = counted[: len(counted) // groups * groups].reshape(-1, groups).max(axis=0)
        least = np.partition(best, -self._wanted)[-self._wanted]
        self._floor = max(self._floor, float(least) - 2 * self._scorer.margin)

    def page(self) -> Page:
        """The page; all rows have been seen."""
        if self._scorer.overflows:
            return Page(np.zeros(1, np.int32), np.full(1, np.nan, np.float32), more=False)
        self._settle()
        k = self._query.k
        return Page(self._rows[:k], self._scores[:k], more=len(self._rows) > k)

    def _add(self, rows: NDArray[np.int32], scores: NDArray[np.float32]) -> None:
        if self._query.after is not None:
            rows, scores = self._behind(self._query.after, rows, scores)
        self._rows = np.concatenate((self._rows, rows))
        self._scores = np.concatenate((self._scores, scores))
        if len(self._rows) > self._wanted:
            # So many rows score at least this by the product, and exactly a margin less.
            least = np.partition(self._scores, -self._wanted)[-self._wanted]
            self._keep_from(least - 2 * self._scorer.margin)
        if len(self._rows) > self._wanted + MORE_KEPT:
            self._settle()

    def _behind(
        self, place: Place, rows: NDArray[np.int32], scores: NDArray[np.float32]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """What lies behind `place`; where the margin does not tell, the exact score does."""
        unclear = np.abs(scores - np.float32(place.score)) <= self._scorer.margin
        scores = scores.copy()
        scores[unclear] = self._scorer.of(rows[unclear])
        behind = (scores < place.score) | ((scores == place.score) & (rows > place.row))
        return rows[behind], scores[behind]

    def _keep_from(self, floor: float) -> None:
        self._floor = max(self._floor, floor)
        kept = self._scores >= self._floor
        self._rows, self._scores = self._rows[kept], self._scores[kept]

    def _settle(self) -> None:
        """Score all that is kept exactly, and keep what is wanted of it."""
        scores = self._scorer.of(self._rows)
        best = np.lexsort((self._rows, -scores))[: self._wanted]
        self._rows, self._scores = self._rows[best], scores[best]
        if self._query.min_score is not None:
            enough = self._scores >= self._query.min_score
            self._rows, self._scores = self._rows[enough], self._scores[enough]
        if len(self._rows) == self._wanted:
            self._floor = max(self._floor, float(self._scores[-1]) - self._scorer.margin)
