"""Pages of one order: none repeats a row, none skips one, whatever products the order is found by.

The product that chooses rows is made as wrong here as its margin allows, anew in each call: no hardware is
worse. Vectors are few small integers, so that rows tie by the dozen, exactly and nearly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosine.engines import pages
from kosine.engines.exact_scores import ExactScorer
from kosine.engines.filters import RowFilter
from kosine.engines.pages import PageQuery, Place, pages_of
from tests.kit.device import cpu_device
from tests.kit.engines import matrix_of
from tests.kit.oracle import assert_exact, best_first, tolerance, true_scores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kosine.engines.engine import Engine
    from kosine.engines.matrix import Order
    from kosine.engines.pages import Page

TILE = 37


class Rows:
    """Rows in tiles, and products with them that are off by all that the margin allows."""

    def __init__(self, vectors: NDArray[np.float32], *, metric: str, seed: int) -> None:
        self.metric = metric
        if metric == "cosine":
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        self.vectors = vectors.astype(np.float32)
        self.tiles = [(first, min(TILE, len(vectors) - first)) for first in range(0, len(vectors), TILE)]
        self._random = np.random.default_rng(seed)

    def take(self, rows: NDArray[np.int32]) -> NDArray[np.float32]:
        return self.vectors[rows]

    def scorer(self, query: NDArray[np.float32]) -> ExactScorer:
        limits = np.abs(self.vectors).max(axis=0) if self.metric == "dot" else None
        return ExactScorer(query, take=self.take, limits=limits)

    def pages(self, asked: list[tuple[NDArray[np.float32], PageQuery]]) -> list[Page]:
        """A page for each query, all in one call."""
        scorers = [self.scorer(query) for query, _ in asked]
        margin = min(scorer.margin for scorer in scorers)

        def product(units: NDArray[np.float32], tile: int) -> NDArray[np.float32]:
            first, rows = self.tiles[tile]
            truth = units.astype(np.float64) @ self.vectors[first : first + rows].astype(np.float64).T
            off = self._random.uniform(-0.8, 0.8, truth.shape) * margin
            padding = np.zeros((len(units), 3))
            return np.concatenate((truth + off, padding), axis=1).astype(np.float32)

        return pages_of(
            zip(scorers, (each for _, each in asked), strict=True), tiles=self.tiles, product=product
        )

    def walk(
        self,
        query: NDArray[np.float32],
        sizes: Iterator[int],
        *,
        filter_: RowFilter | None,
        least: float | None,
    ) -> tuple[list[int], list[float]]:
        """All pages, each beside another number of other queries."""
        rows: list[int] = []
        scores: list[float] = []
        place, more = None, True
        while more:
            wanted = PageQuery(k=next(sizes), after=place, filter=filter_, min_score=least)
            others = [(self.vectors[row] + np.float32(0.3), PageQuery(k=2)) for row in range(len(rows) % 5)]
            page = self.pages([(query, wanted), *others])[0]
            rows += page.rows.tolist()
            scores += page.scores.tolist()
            more = page.more
            if more:
                place = Place(scores[-1], rows[-1])
        return rows, scores


@st.composite
def vectors_and_query(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Up to 120 rows of few kinds, and now and then one that is almost another."""
    dim = draw(st.integers(1, 4))
    kinds = draw(st.lists(st.lists(st.integers(-2, 2), min_size=dim, max_size=dim), min_size=1, max_size=6))
    which = draw(st.lists(st.integers(0, len(kinds) - 1), min_size=1, max_size=120))
    vectors = np.array([kinds[kind] for kind in which], np.float32)
    vectors[~vectors.any(axis=1), 0] = 1.0
    for row in draw(st.lists(st.integers(0, len(which) - 1), max_size=5)):
        vectors[row, 0] = np.nextafter(vectors[row, 0], np.float32(9))
    query = np.array(draw(st.lists(st.integers(-3, 3), min_size=dim, max_size=dim)), np.float32)
    return vectors, query if query.any() else np.ones(dim, np.float32)


@st.composite
def row_filters(draw: st.DrawFn, rows: int) -> RowFilter | None:
    numbers = st.lists(st.integers(0, rows - 1), unique=True, max_size=rows)
    excluded, included = draw(st.none() | numbers), draw(st.none() | numbers)
    mask = draw(st.none() | st.lists(st.booleans(), min_size=rows, max_size=rows))
    return RowFilter(
        excluded=None if excluded is None else np.array(excluded, np.int32),
        included=None if included is None else np.array(included, np.int32),
        mask=None if mask is None else np.array(mask, np.bool_),
    )


def passing(filter_: RowFilter | None, rows: int) -> NDArray[np.bool_]:
    """Which rows a filter lets pass, said another way than the engine says it."""
    passed = np.ones(rows, np.bool_)
    if filter_ is not None and filter_.included is not None:
        passed &= np.isin(np.arange(rows), filter_.included)
    if filter_ is not None and filter_.excluded is not None:
        passed[filter_.excluded] = False
    return passed if filter_ is None or filter_.mask is None else passed & filter_.mask


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@given(data=st.data())
def test_pages_repeat_nothing_and_skip_nothing(metric: str, data: st.DataObject) -> None:
    """Behind each other they are one order of all rows that pass, whatever their sizes and their company."""
    vectors, query = data.draw(vectors_and_query())
    filter_ = data.draw(st.none() | row_filters(len(vectors)))
    least = data.draw(st.none() | st.floats(-2, 2, width=32))
    sizes = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    rows = Rows(vectors, metric=metric, seed=data.draw(st.integers(0, 2**32)))

    found, scores = rows.walk(
        query, (sizes[at % len(sizes)] for at in range(1000)), filter_=filter_, least=least
    )

    exact = rows.scorer(query).of(np.arange(len(vectors), dtype=np.int32))
    wanted = passing(filter_, len(vectors)) & (exact >= (-np.inf if least is None else least))
    order = [row for row in np.lexsort((np.arange(len(vectors)), -exact)) if wanted[row]]
    assert order == found
    assert exact[found].tolist() == scores


@given(vectors_and_query(), st.sampled_from(["cosine", "dot"]))
def test_a_score_is_the_oracles_and_alone_what_it_is_among_others(
    asked: tuple[NDArray[np.float32], NDArray[np.float32]], metric: str
) -> None:
    """To the last bit of a float32 of the sum in float64, and the same for any choice of rows."""
    rows = Rows(asked[0], metric=metric, seed=0)
    scorer = rows.scorer(asked[1])
    together = scorer.of(np.arange(len(asked[0]), dtype=np.int32))
    alone = [scorer.of(np.array([row], np.int32))[0] for row in range(len(asked[0]))]
    precise = asked[1].astype(np.float64)
    truth = rows.vectors.astype(np.float64) @ (
        precise / np.linalg.norm(precise) if metric == "cosine" else precise
    )

    assert together.tolist() == alone
    np.testing.assert_allclose(together, truth, rtol=2**-23, atol=1e-12)


def test_more_near_ties_than_are_kept_are_settled_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory does not grow with rows that tie; the lower rows come first all the same."""
    monkeypatch.setattr(pages, "MORE_KEPT", 5)
    rows = Rows(np.ones((400, 3), np.float32), metric="cosine", seed=1)
    found, _ = rows.walk(np.ones(3, np.float32), iter([7] * 100), filter_=None, least=None)
    assert [*range(400)] == found


def engine_over(vectors: NDArray[np.float32], *, metric: str, order: Order = "dim_major") -> Engine:
    matrix = matrix_of(
        vectors, normalise=metric == "cosine", order=order if metric == "cosine" else "dim_major"
    )
    return cpu_device().build(matrix, metric=metric, max_k=10, max_rows=16)


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize(("count", "dim"), [(1, 3), (300, 7), (5_001, 100), (140_000, 2)])
def test_pages_of_an_engine_are_the_oracles(count: int, dim: int, metric: str, order: Order) -> None:
    """Over one tile and over several, beside others and alone, down to the last row."""
    random = np.random.default_rng([count, dim])
    vectors = random.standard_normal((count, dim), dtype=np.float32)
    vectors[count // 2 :: 3] = vectors[0]
    queries = random.standard_normal((3, dim), dtype=np.float32)
    engine = engine_over(vectors, metric=metric, order=order)
    truth = true_scores(vectors, queries, metric=metric)
    scale = np.linalg.norm(vectors, axis=1).max() * np.linalg.norm(queries[1]) if metric == "dot" else 1.0

    place = None
    rows: list[int] = []
    scores: list[float] = []
    for size in (count // 3 + 1, 1, count):
        wanted = PageQuery(k=size, after=place)
        asked = [PageQuery(k=2), wanted, PageQuery(k=3)] if len(rows) != 1 else [wanted]
        page = engine.search_after(queries if len(asked) > 1 else queries[1:2], asked)[len(asked) // 2]
        rows, scores = [*rows, *page.rows.tolist()], [*scores, *page.scores.tolist()]
        if not page.more:
            break
        place = Place(scores[-1], rows[-1])

    found = np.array([rows], np.int32), np.array([scores], np.float32)
    assert_exact(found, truth[1:2], count, within=tolerance(dim) * scale)


def test_a_dot_product_that_may_overflow_is_no_number() -> None:
    """Neither the page nor a score is invented; a query beside it is answered."""
    engine = engine_over(np.full((9, 2), 1e30, np.float32), metric="dot")
    queries = np.array([[1e30, 1], [1e-30, 0]], np.float32)
    bad, good = engine.search_after(queries, [PageQuery(k=2)] * 2)
    assert np.isnan(bad.scores).all()
    assert not bad.more
    assert [0, 1] == good.rows.tolist()
    assert np.isnan(engine.score(queries[0], np.arange(3, dtype=np.int32))).all()


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_given_rows_are_scored_in_their_order_and_beyond_max_k(metric: str, order: Order) -> None:
    """As often as they are named; an engine of max_k 10 scores 3000."""
    random = np.random.default_rng(3)
    vectors, query = random.standard_normal((2_000, 40), np.float32), random.standard_normal(40, np.float32)
    rows = random.integers(0, 2_000, 3_000).astype(np.int32)
    truth = true_scores(vectors, query[None], metric=metric)[0]
    scores = engine_over(vectors, metric=metric, order=order).score(query, rows)
    np.testing.assert_allclose(scores, truth[rows], rtol=0, atol=1e-6 * max(1.0, np.abs(truth).max()))


def test_pages_begin_as_the_search_does() -> None:
    """Where scores are apart, the first page is what a plain query finds."""
    vectors = np.random.default_rng(5).standard_normal((3_000, 20), dtype=np.float32)
    engine = engine_over(vectors, metric="cosine")
    rows, scores = engine.search(vectors[:2], 10)
    assert best_first(true_scores(vectors, vectors[:2]), 10).tolist() == rows.tolist()
    for at, page in enumerate(engine.search_after(vectors[:2], [PageQuery(k=10)] * 2)):
        assert rows[at].tolist() == page.rows.tolist()
        np.testing.assert_allclose(page.scores, scores[at], rtol=0, atol=tolerance(20))
