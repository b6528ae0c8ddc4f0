"""What an exact answer is, and how much of an answer is one.

Rows whose scores differ by less than float32 can tell may stand in for each other, so row numbers are not
compared: a returned row is right when its own score, computed here in float64, reaches the k-th best score
less `epsilon`, and the score that came with it is that score within `epsilon`. No row counts twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kosine.bench.filters import Findable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ("Truth", "Verdict", "epsilon_of")

_CHUNK_BYTES = 64 * 2**20


def epsilon_of(dim: int) -> float:
    """What float32 may be off by, for vectors of length 1.

    >>> epsilon_of(100), round(epsilon_of(65536), 7)
    (1e-05, 4.1e-05)
    """
    return max(1e-5, 1.6e-7 * math.sqrt(dim))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one answer."""

    right: int
    """Returned rows that belong to the best."""
    expected: int
    score_error: float
    """Largest difference between a returned score and the row's own; infinite where a row does not exist."""


class Truth:
    """Judges answers to fixed queries over one matrix; a rolled matrix is judged by the same scores."""

    def __init__(
        self,
        vectors: NDArray[np.floating],
        queries: NDArray[np.float64],
        *,
        k: int,
        metric: str = "cosine",
        findable: Findable | None = None,
    ) -> None:
        """`vectors` [N, d] may be a memory map: it is read once here, and by rows afterwards."""
        self.rows, self.dim = vectors.shape
        self._findable = findable or Findable()
        self._expected = np.minimum(k, self._findable.counts(queries=len(queries), rows=self.rows))
        self._vectors = vectors
        self._cosine = metric == "cosine"
        self._queries = _unit(queries) if self._cosine else queries
        longest, self._threshold = self._best(min(k, self.rows))
        scale = 1.0 if self._cosine else longest * float(np.linalg.norm(queries, axis=1).max())
        self.epsilon = epsilon_of(self.dim) * scale

    def expected(self, query: int) -> int:
        """How many rows its answer has."""
        return int(self._expected[query])

    def judge(
        self, query: int, ids: Sequence[int | str], scores: Sequence[float], *, rolled: int = 0
    ) -> Verdict:
        """How right the answer `ids`, `scores` is; row r of the matrix stands at `r + rolled` in the file."""
        rows = np.array([id_ if self._exists(id_) else -1 for id_ in ids], dtype=np.int64)
        expected = self.expected(query)
        if not len(rows):
            return Verdict(0, expected, math.inf if expected else 0.0)
        if rows.min() < 0:
            return Verdict(0, expected, math.inf)
        own = (rows - rolled) % self.rows
        true = self._scores(query, own)
        errors = np.abs(true - np.asarray(scores, dtype=np.float64))
        good = (true >= self._threshold[query] - self.epsilon) & (errors <= self.epsilon)
        good &= self._findable.allows(query, own)
        right = min(len(np.unique(rows[good])), expected) if len(rows) == expected else 0
        return Verdict(right, expected, float(errors.max()))

    def _exists(self, id_: int | str) -> bool:
        return isinstance(id_, int) and 0 <= id_ < self.rows

    def _scores(self, query: int, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        found = np.asarray(self._vectors[rows], dtype=np.float64)
        scores: NDArray[np.float64] = (_unit(found) if self._cosine else found) @ self._queries[query]
        return scores

    def _best(self, width: int) -> tuple[float, NDArray[np.float64]]:
        """The longest row, and for each query the score of the last row that belongs to the answer.

        One pass in float32, which is good to a fraction of epsilon and four times as fast as float64.
        """
        queries = self._queries.astype(np.float32)
        best: NDArray[np.float32] | None = None
        longest = 0.0
        step = max(width, _CHUNK_BYTES // (4 * max(self.dim, len(queries))))
        for start in range(0, self.rows, step):
            chunk = np.asarray(self._vectors[start : start + step], dtype=np.float64)
            longest = max(longest, float(np.linalg.norm(chunk, axis=1).max()))
            chunk = _unit(chunk) if self._cosine else chunk
            scores = queries @ chunk.astype(np.float32).T
            self._findable.hide(scores, first=start)
            best = _top(scores, width) if best is None else _merged(best, scores)
        assert best is not None  # noqa: S101  there is a row
        last = best[np.arange(len(best)), np.maximum(self._expected, 1) - 1]
        return longest, last.astype(np.float64)


def _top(scores: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """The best `count` per row, descending."""
    found = np.partition(scores, -count, axis=1)[:, -count:]
    found.sort(axis=1)
    return found[:, ::-1]


def _merged(best: NDArray[np.float32], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """The best of both per row, descending; only scores above the worst of `best` are looked at twice."""
    width = best.shape[1]
    owner, column = np.nonzero(scores > best[:, -1:])
    values = np.concatenate([best.ravel(), scores[owner, column]])
    owners = np.concatenate([np.repeat(np.arange(len(best)), width), owner])
    order = np.lexsort((-values, owners))
    starts = np.searchsorted(owners[order], np.arange(len(best)))
    merged: NDArray[np.float32] = values[order[starts[:, None] + np.arange(width)]]
    return merged


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    rows = vectors.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows
