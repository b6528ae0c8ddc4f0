"""Queries that leave out few rows: a little more is found than was asked for, and what is left out dropped.

Of the best k + n rows no more than n being left out, the best k of the others are among them, and in their
order. So that is an answer, and costs hardly more than that of a plain query. Who is left with fewer
than k is searched again, by scores without those rows, which costs as much as a search of its own: worth it
while that is rare. Where callers leave out what they would find, as what they have seen, it is the rule, and
all are searched by such scores at once. Which of the two it is, is learned from the answers. NumPy only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kosine.engines.second_calls import SecondCalls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kosine.engines.filters import RowFilter

__all__ = ("SPARE", "SpareResults", "drop", "excluded_by", "left_out")

SPARE = 2
"""More results than asked for, at most: each costs a block more to choose from, 0.7 % of a call."""

_ROW_NUMBERS = 2**31
"""As many as an int32 holds."""
_MOST_COMPARED = 2**22
"""Results times rows left out, of all queries: past it comparing takes longer than it saves."""
_TOO_MUCH = 0.08
"""What second calls may cost of the first ones; scores without rows cost that much more than plain ones."""
_NEXT_TO_NOTHING = 0.005
"""Of the first calls: below it, one result more is enough."""


class SpareResults:
    """Whether to try, by what second calls have cost of late. Of one engine, used by its device thread."""

    def __init__(self) -> None:
        self._second = SecondCalls(too_much=_TOO_MUCH)

    @property
    def results(self) -> int:
        """How many more to ask for."""
        return 1 if self._second.cost < _NEXT_TO_NOTHING else SPARE

    def worth_trying(self, *, k: int, rows: int, queries: int, most: int) -> bool:
        """For `queries` that want `k` of `rows` and leave out `most` at most."""
        if k + SPARE > rows or queries * (k + SPARE) * most > _MOST_COMPARED:
            return False
        return self._second.worth_risking()

    def note(self, *, short: int, queries: int) -> None:
        """Of so many queries, so many had to be searched again."""
        self._second.note(again=short, queries=queries)


def excluded_by(filters: Sequence[RowFilter | None]) -> list[NDArray[np.integer]]:
    """The rows that each query excludes, perhaps none."""
    none = np.empty(0, np.int32)
    return [none if each is None or each.excluded is None else each.excluded for each in filters]


def left_out(excluded: Sequence[NDArray[np.integer]], most: int) -> NDArray[np.int32]:
    """[B, most]: the `excluded` rows of each query, of which none has more than `most`, filled up with -1."""
    flat = np.concatenate(excluded)
    if flat.dtype != np.int32:
        flat = np.where(flat.astype(np.uint64) < _ROW_NUMBERS, flat, -1).astype(np.int32)
    if len(flat) == most * len(excluded):
        return flat.reshape(len(excluded), most)
    rows = np.full((len(excluded), most), -1, np.int32)
    rows[np.arange(most) < np.array([len(each) for each in excluded])[:, np.newaxis]] = flat
    return rows


def drop(
    numbers: NDArray[np.int32], scores: NDArray[np.float32], rows: NDArray[np.int32], k: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.intp]]:
    """The first `k` of what was found, `numbers` [B, n] and `scores` [B, n], without `rows` [B, most].

    Behind them the queries of which fewer than `k` are left.
    """
    kept, kept_scores = numbers[:, :k], scores[:, :k]
    # [n, B, most]: in this order, it is compared in two thirds of the time.
    same = np.flatnonzero(np.ascontiguousarray(numbers.T)[:, :, np.newaxis] == rows)
    if not len(same):
        return kept, kept_scores, np.empty(0, np.intp)
    out = np.zeros(numbers.shape, np.bool_)
    out.T.flat[same // rows.shape[1]] = True
    fewer = np.flatnonzero(out.any(axis=1))
    order = np.argsort(out[fewer], axis=1, kind="stable")[:, :k]
    kept[fewer] = np.take_along_axis(numbers[fewer], order, 1)
    kept_scores[fewer] = np.take_along_axis(scores[fewer], order, 1)
    return kept, kept_scores, fewer[out[fewer].sum(axis=1) > numbers.shape[1] - k]
