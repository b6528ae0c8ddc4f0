"""One query by BLAS is the same answer: law 8 holds, whatever order BLAS sums in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosine.engines.single_query import SingleQuery, SingleQueryChoice
from tests.kit.device import cpu_device
from tests.kit.engines import matrix_of
from tests.kit.oracle import assert_exact, tolerance, true_scores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kosine.engines.matrix import ItemMatrix, Order


def gaussian(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


def answer(vectors: NDArray[np.float32], query: NDArray[np.float32], k: int) -> tuple[Any, Any]:
    found = SingleQuery(matrix_of(vectors)).search(query, k)
    assert found is not None
    return found


@pytest.mark.parametrize("dim", [1, 2, 3, 100, 768])
@pytest.mark.parametrize("count", [64, 1_000, 10_001])
def test_the_answer_is_the_oracles(count: int, dim: int, order: Order) -> None:
    """For every size and k that it takes on; dimension 1, where half of all rows tie, goes to the graph."""
    vectors, asked = gaussian(count, dim), gaussian(1, dim, seed=1)
    truth = true_scores(vectors, asked)
    engine = SingleQuery(matrix_of(vectors, order=order))
    for k in {1, min(10, count // 64), min(100, count // 64)}:
        found = engine.search(asked, k)
        if found is None:
            assert dim == 1
        else:
            assert_exact(found, truth, k, within=tolerance(dim))


@settings(max_examples=50, deadline=None)
@given(count=st.integers(64, 3_000), dim=st.integers(2, 40), seed=st.integers(0, 2**32 - 1))
def test_any_shape_is_exact(count: int, dim: int, seed: int) -> None:
    """Whatever the shapes, right rows come best first."""
    vectors, asked = gaussian(count, dim, seed=seed), gaussian(1, dim, seed=seed + 1)
    k = max(1, count // 64)
    found = SingleQuery(matrix_of(vectors)).search(asked, k)
    if found is not None:
        assert_exact(found, true_scores(vectors, asked), k, within=tolerance(dim))


def test_several_tiles_are_one_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of every tile are found under their own numbers, and padding is none."""
    monkeypatch.setattr("kosine.engines.matrix.MOST_COLUMNS", 256)
    monkeypatch.setattr("kosine.engines.matrix.TILE_COLUMNS", 256)
    vectors, asked = -np.abs(gaussian(2_001, 7)), np.abs(gaussian(1, 7, seed=1))
    assert_exact(answer(vectors, asked, 10), true_scores(vectors, asked), 10, within=tolerance(7))


@pytest.mark.parametrize(("count", "dim"), [(1_000, 2), (10_000, 100), (10_001, 768)])
def test_equal_rows_score_equal_wherever_they_are(count: int, dim: int) -> None:
    """Copies of a row, far apart and last, get the same bits and keep their order."""
    copies = [0, 7, 31, 64, 127, 128, count // 2, count - 2, count - 1]
    vectors = gaussian(count, dim)
    vectors[copies] = vectors[0]
    rows, scores = answer(vectors, vectors[:1], len(copies))
    assert copies == rows[0].tolist()
    assert {scores[0, 0]} == set(scores[0])


def test_what_the_graph_does_better_is_left_to_it() -> None:
    """Many results, few rows, or thousands of rows that tie: no answer, and no time lost on one."""
    alone = SingleQuery(matrix_of(gaussian(20_000, 8)))
    assert alone.search(gaussian(1, 8), 129) is None
    assert SingleQuery(matrix_of(gaussian(300, 8))).search(gaussian(1, 8), 10) is None
    assert SingleQuery(matrix_of(np.ones((20_000, 8)))).search(gaussian(1, 8), 10) is None


@pytest.mark.parametrize(("blas", "graph", "expected"), [(1.0, 2.0, "blas"), (2.0, 1.0, "graph")])
def test_the_faster_way_is_taken_and_remembered(blas: float, graph: float, expected: str) -> None:
    """The first matrix of a size decides, by the median of alternating calls; a reload measures nothing."""

    def ticks() -> Iterator[float]:
        now = 0.0
        for turn in range(14):
            yield now
            now += blas if turn % 2 == 0 else graph
            yield now
        raise AssertionError("it was measured again")

    clock = ticks()
    choice = SingleQueryChoice(clock=lambda: next(clock))
    for rows in (5_000, 5_100):
        chosen = choice.blas(matrix_of(gaussian(rows, 4)), [lambda *_: None])
        assert expected == ("graph" if chosen is None else "blas")


def test_each_order_of_items_is_measured_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """BLAS reads them at different speeds."""
    orders: list[Order] = ["dim_major", "row_major"]
    measured: list[Order] = []

    def measure(_: SingleQueryChoice, matrix: ItemMatrix, __: object) -> bool:
        measured.append(matrix.order)
        return True

    monkeypatch.setattr(SingleQueryChoice, "_measure", measure)
    choice = SingleQueryChoice()
    for order in (*orders, *orders):
        choice.blas(matrix_of(gaussian(5_000, 4), order=order), [])
    assert orders == measured


def test_both_ways_answer_alike_through_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """After warm-up a query alone may go by BLAS; its answer is the graph's, k past its limit included."""
    monkeypatch.setattr(SingleQueryChoice, "_measure", lambda *_: True)
    vectors, asked = gaussian(30_011, 24), gaussian(1, 24, seed=1)
    engine: Any = cpu_device().build(matrix_of(vectors), metric="cosine", max_k=200, max_rows=8)
    assert "graph" == engine.single_query
    engine.warm_up((1, 8), lambda _: None)
    cpu_device().graphs.single_query = SingleQueryChoice()
    assert "blas" == engine.single_query
    truth = true_scores(vectors, asked)
    for k in (1, 10, 128, 129, 200):
        assert_exact(engine.search(asked, k), truth, k, within=tolerance(24))
