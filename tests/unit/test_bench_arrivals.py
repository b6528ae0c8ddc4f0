"""When which request is sent."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from kosine.bench.arrivals import poisson_arrivals, request_order


def rng(seed: int = 7) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("rate", "seconds"), [(0.5, 10.0), (50.0, 2.0), (5000.0, 1.0), (3.0, 0.1)])
def test_arrivals_ascend_lie_within_the_load_and_are_the_same_for_the_same_seed(
    rate: float, seconds: float
) -> None:
    """A run can be repeated."""
    times = poisson_arrivals(rate, seconds, rng())
    assert (times[1:] > times[:-1]).all()
    assert ((times >= 0) & (times < seconds)).all()
    np.testing.assert_array_equal(times, poisson_arrivals(rate, seconds, rng()))
    assert times.tolist() != poisson_arrivals(rate, seconds, rng(8)).tolist() or len(times) == 0


def test_arrivals_are_poisson() -> None:
    """Their number is the rate times the time, and gaps spread as much as they last."""
    rate, seconds = 1000.0, 50.0
    times = poisson_arrivals(rate, seconds, rng())
    gaps = np.diff(times)
    assert abs(len(times) - rate * seconds) < 5 * math.sqrt(rate * seconds)
    assert abs(gaps.mean() * rate - 1) < 0.03
    assert abs(gaps.std() * rate - 1) < 0.03
    assert abs(np.count_nonzero(gaps > 1 / rate) / len(gaps) - math.exp(-1)) < 0.02


def test_every_query_is_asked_before_one_is_asked_again() -> None:
    """Distinct queries, so that no cache on the way can answer."""
    assert [*range(50)] == request_order([1.0], 50, rng()).tolist()
    mixed = request_order([3.0, 1.0], 50, rng())
    for index in range(2):
        mine = [number - 50 * index for number in mixed.tolist() if number // 50 == index]
        turns = [mine[start : start + 50] for start in range(0, len(mine) - 50, 50)]
        assert turns
        assert all([*range(50)] == turn for turn in turns)


def test_indexes_are_asked_by_weight() -> None:
    """3 to 1 means three of four requests."""
    shares = Counter((request_order([3.0, 1.0], 1000, rng()) // 1000).tolist())
    assert abs(shares[0] / shares.total() - 0.75) < 0.02
