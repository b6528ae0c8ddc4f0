"""What an exact answer is, in float64 NumPy: the judge of every engine test.

A float32 engine may swap rows whose true scores differ by less than its rounding, and must not swap others.
So the judge compares scores, allows near ties either order, and demands row order among equal scores.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ("assert_exact", "best_first", "tolerance", "true_scores")


def tolerance(dim: int) -> float:
    """Largest error of a float32 cosine: 1e-6, past 150 dimensions twice what was measured.

    That is 4e-8 * sqrt(dim), by a query alone, which is summed in sequence. From two queries on the sum is
    blocked, and the error was below 8e-7 at every dimension up to 65536.

    >>> tolerance(100), round(tolerance(768), 7)
    (1e-06, 2.2e-06)
    """
    return max(1e-6, 8e-8 * math.sqrt(dim))


def true_scores(
    vectors: NDArray[np.floating], queries: NDArray[np.floating], *, metric: str = "cosine"
) -> NDArray[np.float64]:
    """Scores [B, N] of `queries` [B, d] against `vectors` [N, d], computed in float64."""
    items, asked = vectors.astype(np.float64), queries.astype(np.float64)
    if metric == "cosine":
        items = items / np.linalg.norm(items, axis=1, keepdims=True)
        asked = asked / np.linalg.norm(asked, axis=1, keepdims=True)
    return asked @ items.T


def best_first(scores: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    """Row numbers [B, k] of the best k, ties to the lower row."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def assert_exact(
    found: tuple[NDArray[np.int32], NDArray[np.float32]],
    truth: NDArray[np.float64],
    k: int,
    *,
    within: float,
) -> None:
    """`found` is an exact top-k of `truth` [B, N]: right scores and order, nothing left out.

    Scores may be off by `within`, so rows closer than twice that may stand in for each other.
    """
    rows, scores = found
    width = min(k, truth.shape[1])
    assert (len(truth), width) == rows.shape
    assert (len(truth), width) == scores.shape
    for numbers, values, line in zip(rows, scores, truth, strict=True):
        assert len(set(numbers.tolist())) == width, "a row was returned twice"
        assert numbers.min() >= 0
        assert numbers.max() < len(line)
        np.testing.assert_allclose(values, line[numbers], rtol=0, atol=within)
        steps, climbs = np.diff(values), np.diff(numbers)
        assert (steps <= 0).all(), "scores are not best first"
        assert (climbs[steps == 0] > 0).all(), "equal scores are not in row order"
        left_out = np.delete(line, numbers)
        assert left_out.max(initial=-np.inf) <= line[numbers].min() + 2 * within, "a better row was left out"
