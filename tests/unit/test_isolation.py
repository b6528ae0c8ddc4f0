"""One failing row never fails its mates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosine.serving.isolation import search_isolated
from tests.kit.engines import NumpyEngine, matrix_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

POISON = np.float32(13.0)


def engine_that_hates_poison(dim: int = 8) -> NumpyEngine:
    def fail_on(queries: NDArray[np.float32]) -> Exception | None:
        return RuntimeError("poison") if (queries == POISON).any() else None

    return NumpyEngine(matrix=matrix_of(np.eye(dim)), fail_on=fail_on)


@given(st.sets(st.integers(0, 31)), st.integers(1, 32))
def test_exactly_the_poisoned_rows_fail(poisoned: set[int], size: int) -> None:
    """H16: whatever rows the engine cannot take, the others get the answer they would get alone."""
    engine = engine_that_hates_poison()
    queries = np.eye(8, dtype=np.float32)[np.arange(size) % 8]
    culprits = {row for row in poisoned if row < size}
    for row in culprits:
        queries[row, 7] = POISON

    found = search_isolated(engine.search, queries, 3, width=3)

    assert culprits == set(found.failed)
    good = [row for row in range(size) if row not in culprits]
    assert [row % 8 for row in good] == found.rows[good, 0].tolist()
    assert (size, 3) == found.rows.shape == found.scores.shape


@pytest.mark.parametrize(("size", "calls"), [(1, 1), (2, 3), (64, 13), (128, 15)])
def test_one_culprit_costs_two_calls_a_halving(size: int, calls: int) -> None:
    """H16: finding one culprit among B rows takes 2 log2(B) + 1 calls, not B."""
    engine = engine_that_hates_poison()
    queries = np.ones((size, 8), np.float32)
    queries[size // 2, 0] = POISON

    search_isolated(engine.search, queries, 3, width=3)

    assert calls == len(engine.batches)
