"""The best of a few rows, looked up one by one: what a query for given rows takes, and scoring them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ("best_of_few",)


def best_of_few(
    take: Callable[[NDArray[np.int32]], NDArray[np.float32]],
    query: NDArray[np.float32],
    rows: NDArray[np.int32],
    k: int,
    *,
    metric: str,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Numbers and scores [min(k, n)] of the best of `rows` [n], best first, ties to the lower row.

    Summed in float64. All scores are NaN where one of a `dot` query does not fit a float32.
    """
    asked = query.astype(np.float64)
    if metric == "cosine":
        asked /= np.linalg.norm(asked)
    ordered = np.sort(rows)
    with np.errstate(over="ignore"):
        scores = np.einsum("ij,j->i", take(ordered), asked, dtype=np.float64).astype(np.float32)
    if not np.isfinite(scores).all():
        scores[:] = np.nan
    best = np.argsort(-scores, kind="stable")[:k]
    return ordered[best], scores[best]
