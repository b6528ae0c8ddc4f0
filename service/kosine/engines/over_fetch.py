"""Excluded rows, dropped from a few more results than were asked for. Pure: no TensorFlow.

Most of what callers exclude is not among the best rows of a query, and then this costs nearly nothing, where
leaving places out of the scores takes 4 to 8 per cent of a call (docs/performance.md). Queries that are left
with too few results are answered again; where that happens more than seldom, it is not even tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kosine.engines.filters import RowFilter

__all__ = ("MORE", "OverFetch", "drop")

MORE = 6
"""Results beside those that are wanted: with k=10 they are free (docs/performance.md)."""

_WEIGHT = 1 / 16
"""Of the latest call in the mean of all; so it takes two bad ones in a row to change the way."""

_MOST_SHORT = 1 / 10
"""Share of calls. Answering a few queries again takes a third of a call of 64, and saves a fifteenth."""

_PAUSE = 64
"""Calls that go the other way before this one is tried again."""


class OverFetch:
    """Whether it is worth trying, as its calls have turned out; one for each engine.

    >>> way = OverFetch()
    >>> for _ in range(2):
    ...     way.learn(short=True)
    >>> [way.is_worth_trying() for _ in range(_PAUSE)].count(True)
    1
    """

    def __init__(self) -> None:
        self._short = 0.0
        self._passed = 0

    def is_worth_trying(self) -> bool:
        """Ask before each call."""
        if self._short <= _MOST_SHORT:
            return True
        self._passed = (self._passed + 1) % _PAUSE
        return not self._passed

    def learn(self, *, short: bool) -> None:
        """How a call that was tried has turned out: whether some query was left with too few results."""
        self._short += (short - self._short) * _WEIGHT


def drop(
    numbers: NDArray[np.int32],
    scores: NDArray[np.float32],
    filters: Sequence[RowFilter | None],
    k: int,
    *,
    rows: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32], list[int]]:
    """The best `k` of the answers [B, more than k] without what the filters exclude, and who has fewer left.

    Those hold anything. `numbers` are of `rows` rows.
    """
    hit = _excluded(numbers, filters, rows)
    if not hit.any():
        return numbers[:, :k], scores[:, :k], []
    left = np.argsort(hit, axis=1, kind="stable")[:, :k]
    short = np.flatnonzero(np.count_nonzero(~hit, axis=1) < k).tolist()
    return np.take_along_axis(numbers, left, axis=1), np.take_along_axis(scores, left, axis=1), short


def _excluded(
    numbers: NDArray[np.int32], filters: Sequence[RowFilter | None], rows: int
) -> NDArray[np.bool_]:
    """[B, n]: which of the rows found for each query it excludes."""
    lists = {
        query: each.excluded
        for query, each in enumerate(filters)
        if each is not None and each.excluded is not None and len(each.excluded)
    }
    hit = np.zeros(numbers.shape, np.bool_)
    if not lists:
        return hit
    by_anybody = np.zeros(rows, np.bool_)
    by_anybody[np.concatenate([*lists.values()])] = True
    # Few of the rows that are found are excluded by anybody; only for those the lists are looked through.
    suspects = [each for each in np.argwhere(by_anybody[numbers]).tolist() if each[0] in lists]
    if not suspects:
        return hit
    mine = [lists[query] for query, _ in suspects]
    counts = np.array([len(each) for each in mine])
    at = tuple(np.array(suspects).T)
    same = np.concatenate(mine) == np.repeat(numbers[at], counts)
    hit[at] = np.logical_or.reduceat(same, np.cumsum(counts) - counts)
    return hit
