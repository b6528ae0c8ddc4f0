"""Percentiles by nearest rank."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosine.bench.percentiles import percentiles, percentiles_of_counts

MILLISECONDS = st.integers(0, 10**6).map(lambda tenths: tenths / 10)


def rank(values: list[float], per_mille: int) -> float:
    """The definition: the smallest value that so many of the values do not exceed."""
    needed = per_mille * len(values)
    return next(value for value in sorted(values) if 1000 * sum(v <= value for v in values) >= needed)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, (1, 1, 1, 1)),
        (2, (1, 2, 2, 2)),
        (100, (50, 95, 99, 100)),
        (1000, (500, 950, 990, 999)),
        (10_000, (5000, 9500, 9900, 9990)),
    ],
)
def test_of_1_to_n_the_percentile_is_its_rank(count: int, expected: tuple[float, ...]) -> None:
    """Also where a percentage of the count is a whole number."""
    found = percentiles(np.arange(count, 0, -1) / 1e3)
    assert found is not None
    assert expected == (found.p50, found.p95, found.p99, found.p99_9)
    assert (count, count) == (found.count, found.max)


@given(st.lists(MILLISECONDS, min_size=1, max_size=40))
def test_it_is_always_a_measured_value_and_the_right_one(values: list[float]) -> None:
    """Nothing is interpolated."""
    found = percentiles(np.array(values) / 1e3)
    assert found is not None
    asked = (found.p50, found.p95, found.p99, found.p99_9, found.max)
    assert [rank(values, mille) for mille in (500, 950, 990, 999, 1000)] == pytest.approx(asked)
    assert math.fsum(values) / len(values) == pytest.approx(found.mean, abs=1e-4)


@given(st.dictionaries(MILLISECONDS, st.integers(1, 50), min_size=1, max_size=12))
def test_a_histogram_has_the_percentiles_of_what_it_counted(counts: dict[float, int]) -> None:
    """Which is how what wrk tells is read."""
    values = np.array([*counts]) / 1e3
    times = np.array([*counts.values()])
    one_by_one, counted = percentiles(np.repeat(values, times)), percentiles_of_counts(values, times)
    assert one_by_one is not None
    assert counted is not None
    # Sums in another order differ in the last digit.
    assert msgspec.structs.asdict(one_by_one) == pytest.approx(msgspec.structs.asdict(counted), abs=2e-4)


def test_nothing_has_no_percentiles() -> None:
    """None, not zero."""
    assert percentiles(np.array([])) is None
