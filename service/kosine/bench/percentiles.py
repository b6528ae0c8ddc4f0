"""Percentiles by nearest rank: always a value that was measured, never one interpolated between two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ("Percentiles", "percentiles", "percentiles_of_counts")


class Percentiles(Struct, frozen=True, kw_only=True):
    """Milliseconds. p99 of fewer than 100 values, or p99_9 of fewer than 1000, is their maximum."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    p99_9: float
    max: float


def percentiles(seconds: NDArray[np.floating]) -> Percentiles | None:
    """Of durations in seconds, in any order; None of none."""
    return percentiles_of_counts(seconds, np.ones(len(seconds), dtype=np.int64))


def percentiles_of_counts(seconds: NDArray[np.floating], counts: NDArray[np.integer]) -> Percentiles | None:
    """The same where `seconds[i]` was measured `counts[i]` times, at least once each."""
    if not len(seconds):
        return None
    order = np.argsort(seconds)
    values, ranks = seconds[order], np.cumsum(counts[order])
    total = int(ranks[-1])

    def at(per_mille: int) -> float:
        rank = -(-per_mille * total // 1000)
        return _milliseconds(float(values[np.searchsorted(ranks, rank)]))

    return Percentiles(
        count=total,
        mean=_milliseconds(float(seconds @ counts) / total),
        p50=at(500),
        p95=at(950),
        p99=at(990),
        p99_9=at(999),
        max=at(1000),
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 4)
