"""A query is checked before it meets a queue."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosine.errors import DimMismatch, NotFinite, RequestError, ZeroVector
from kosine.serving.query import to_query

LARGEST = 3.4028234663852886e38


@pytest.mark.parametrize(
    ("values", "metric", "error"),
    [
        ([], "cosine", DimMismatch),
        ([1.0], "cosine", DimMismatch),
        ([1.0, 2.0, 3.0], "dot", DimMismatch),
        ([1e39, 1.0], "cosine", NotFinite),
        ([1e39, 1.0], "dot", NotFinite),
        ([0.0, 0.0], "cosine", ZeroVector),
        ([0.0, -0.0], "cosine", ZeroVector),
        ([1e-46, 1e-60], "cosine", ZeroVector),
    ],
)
def test_a_bad_query_is_refused_by_name(values: list[float], metric: str, error: type[RequestError]) -> None:
    """H1, H3: wrong length, infinite as float32, zero as float32."""
    with pytest.raises(error):
        to_query(values, dim=2, metric=metric)


@given(
    st.lists(st.floats(min_value=-LARGEST, max_value=LARGEST, width=32), min_size=3, max_size=3).filter(
        lambda row: any(abs(value) > 0 for value in row)
    )
)
def test_the_direction_survives_any_magnitude(values: list[float]) -> None:
    """H3: the row a float32 graph normalises has the direction that float64 sees, for 1e-45 as for 1e38."""
    row = to_query(values, dim=3, metric="cosine")

    squared = np.sum(row * row, dtype=np.float32)
    assert np.isfinite(squared)
    assert squared > 1e-38
    exact = np.array(values, np.float64) / np.abs(values).max()
    exact /= np.linalg.norm(exact)
    np.testing.assert_allclose(row / np.sqrt(squared), exact, atol=2e-6)


@pytest.mark.parametrize("values", [[1e-40, 0.0], [1e30, 1.0], [0.0, 0.0], [0.5, 0.25]])
def test_a_dot_product_takes_the_query_as_it_is(values: list[float]) -> None:
    """A dot product depends on length, so nothing is rescaled."""
    assert np.array(values, np.float32).tolist() == to_query(values, dim=2, metric="dot").tolist()


def test_the_refusal_says_what_was_expected_and_what_came() -> None:
    """H1: the error carries both lengths."""
    with pytest.raises(DimMismatch) as refused:
        to_query([1.0] * 99, dim=100, metric="cosine")

    assert {"expected": 100, "got": 99} == refused.value.facts
    assert refused.value.detail == "expected 100 numbers in `embedding`, got 99"
