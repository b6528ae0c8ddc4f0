"""When which request is sent: decided before the load starts, from a seed, so that a run can be repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ("poisson_arrivals", "request_order")

_TURNS_OF_A_MIX = 8
"""A mix of indexes repeats after this many turns through every query."""


def poisson_arrivals(rate: float, seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Seconds from the start at which requests are due, ascending, all below `seconds`.

    The gaps are exponential with mean `1 / rate`: independent callers, who do not wait for each other.
    """
    gaps = rng.exponential(1.0 / rate, size=int(rate * seconds * 1.1) + 64)
    times = np.cumsum(gaps)
    while times[-1] < seconds:
        more = np.cumsum(rng.exponential(1.0 / rate, size=len(gaps)))
        times = np.concatenate([times, times[-1] + more])
    return times[times < seconds]


def request_order(weights: Sequence[float], queries: int, rng: np.random.Generator) -> NDArray[np.uint32]:
    """Request numbers in the order of sending, to be repeated for as long as it takes.

    Request `i * queries + q` asks query q of index i. Indexes are drawn by weight, the queries of each come
    in turn, so that every query is asked before one is asked again.
    """
    if len(weights) == 1:
        return np.arange(queries, dtype=np.uint32)
    shares = np.asarray(weights, dtype=np.float64)
    drawn = rng.choice(len(weights), size=len(weights) * queries * _TURNS_OF_A_MIX, p=shares / shares.sum())
    order = np.empty(len(drawn), dtype=np.uint32)
    for index in range(len(weights)):
        mine = np.flatnonzero(drawn == index)
        order[mine] = index * queries + np.arange(len(mine)) % queries
    return order
