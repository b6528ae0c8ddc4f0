"""Which way a filtered query takes, and that each way finds what NumPy finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosine.engines import filters as filters_module
from kosine.engines.filters import (
    MOST_GATHERED,
    MOST_REMADE,
    RowFilter,
    Way,
    excluded_places,
    masks_of,
    parted,
    way_of,
)
from tests.kit.device import cpu_device
from tests.kit.engines import matrix_of
from tests.kit.oracle import assert_exact, tolerance, true_scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kosine.engines.matrix import Order

COUNT = 700


def numbers(count: int) -> NDArray[np.int32]:
    return np.arange(count, dtype=np.int32)


MASK = np.ones(COUNT, np.bool_)
WAYS: list[tuple[RowFilter | None, Way]] = [
    (None, Way.PRODUCT),
    (RowFilter(), Way.PRODUCT),
    (RowFilter(excluded=numbers(0)), Way.PRODUCT),
    (RowFilter(excluded=numbers(1)), Way.REMADE_BLOCKS),
    (RowFilter(excluded=numbers(MOST_REMADE)), Way.REMADE_BLOCKS),
    (RowFilter(excluded=numbers(MOST_REMADE + 1)), Way.MASKED),
    (RowFilter(mask=MASK), Way.MASKED),
    (RowFilter(mask=MASK, excluded=numbers(1)), Way.MASKED),
    (RowFilter(not_mask=MASK), Way.MASKED),
    (RowFilter(included=numbers(0)), Way.GATHERED),
    (RowFilter(included=numbers(MOST_GATHERED), mask=MASK, excluded=numbers(9)), Way.GATHERED),
    (RowFilter(included=numbers(MOST_GATHERED + 1)), Way.MASKED),
]


@pytest.mark.parametrize(("filter_", "way"), WAYS, ids=lambda value: str(value) if value in [*Way] else "")
def test_the_cheapest_way_is_taken(filter_: RowFilter | None, way: Way) -> None:
    """The crossovers are those of docs/performance.md."""
    assert way is way_of(filter_)


def bits(count: int) -> st.SearchStrategy[NDArray[np.bool_]]:
    """[count], of which any share is true."""
    drawn = st.tuples(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.01, 0.2, 0.9, 1.0]))
    return drawn.map(lambda seed_share: np.random.default_rng(seed_share[0]).random(count) < seed_share[1])


def some_rows(count: int) -> st.SearchStrategy[NDArray[np.int32]]:
    return bits(count).map(lambda chosen: np.flatnonzero(chosen).astype(np.int32))


def row_filters(count: int) -> st.SearchStrategy[RowFilter | None]:
    parts: dict[str, Any] = {
        "excluded": st.none() | some_rows(count),
        "included": st.none() | some_rows(count),
        "mask": st.none() | bits(count),
        "not_mask": st.none() | bits(count),
    }
    return st.none() | st.fixed_dictionaries(parts).map(lambda said: RowFilter(**said))


def allowed(filter_: RowFilter | None, count: int) -> NDArray[np.bool_]:
    """[count]: written apart from the engine."""
    passed = np.ones(count, np.bool_)
    if filter_ is None:
        return passed
    if filter_.included is not None:
        passed[:] = False
        passed[filter_.included] = True
    if filter_.mask is not None:
        passed &= filter_.mask
    if filter_.not_mask is not None:
        passed &= np.logical_not(filter_.not_mask)
    if filter_.excluded is not None:
        passed[filter_.excluded] = False
    return passed


@given(st.lists(row_filters(10), min_size=1, max_size=4), st.integers(1, 10))
def test_places_and_masks_of_tiles_are_those_of_the_rows(
    filters: list[RowFilter | None], tile_rows: int
) -> None:
    """Cut into tiles of any size, each query sees the same rows."""
    for first in range(0, 10, tile_rows):
        rows = min(tile_rows, 10 - first)
        masks, which = masks_of(filters, first=first, rows=rows, columns=tile_rows + 3)
        assert masks[0].all()
        for query, filter_ in enumerate(filters):
            if filter_ is not None:
                seen = allowed(filter_, 10)[first : first + rows]
                assert seen.tolist() == masks[which[query], :rows].tolist()
                assert not masks[which[query], rows:].any()
        out = {tuple(place) for place in excluded_places(filters, first=first, rows=rows).tolist()}
        assert {
            (query, row - first)
            for query, filter_ in enumerate(filters)
            if filter_ is not None and filter_.excluded is not None
            for row in filter_.excluded.tolist()
            if first <= row < first + rows
        } == out


def test_a_mask_that_several_queries_share_is_made_once() -> None:
    """All of them name it by its number."""
    shared, other = RowFilter(mask=MASK), RowFilter(mask=MASK, excluded=numbers(1))
    again, negated = RowFilter(mask=MASK), RowFilter(not_mask=MASK)
    filters = [None, shared, other, again, negated, RowFilter(not_mask=MASK)]
    masks, which = masks_of(filters, first=0, rows=COUNT, columns=COUNT)
    assert (4, [0, 1, 2, 1, 3, 3]) == (len(masks), which.tolist())


def test_few_excluded_rows_are_no_mask_of_their_own() -> None:
    """So queries by `id`, each without its own item, share the mask they name."""
    filters = [
        RowFilter(mask=MASK, excluded=numbers(1)),
        RowFilter(mask=MASK, excluded=numbers(MOST_REMADE)),
        RowFilter(mask=MASK),
        RowFilter(excluded=numbers(MOST_REMADE + 1)),
        RowFilter(excluded=numbers(2)),
        None,
    ]
    few, rest = parted(filters)
    masks, which = masks_of(rest, first=0, rows=COUNT, columns=COUNT)
    places = excluded_places(few, first=0, rows=COUNT)
    assert (3, [1, 1, 1, 2, 0, 0]) == (len(masks), which.tolist())
    assert [1, MOST_REMADE, 0, 0, 2, 0] == np.bincount(places[:, 0], minlength=6).tolist()


def assert_filtered(
    engine: Any, vectors: NDArray[Any], asked: NDArray[np.float32], k: int, filters: list[Any], metric: str
) -> None:
    """Each row of the answer is an exact top-k of the rows that pass, then -inf."""
    found, scores = engine.search_filtered(asked, k, filters)
    truth = true_scores(vectors, asked, metric=metric)
    within = tolerance(vectors.shape[1]) * (1 if metric == "cosine" else np.abs(truth).max())
    for query, filter_ in enumerate(filters):
        rows = np.flatnonzero(allowed(filter_, len(vectors)))
        left = min(k, len(rows))
        assert np.isneginf(scores[query, left:]).all()
        place = {row: at for at, row in enumerate(rows.tolist())}
        mine = np.array([[place[row] for row in found[query, :left].tolist()]], np.int32)
        if left:
            assert_exact(
                (mine, scores[query : query + 1, :left]), truth[query : query + 1, rows], k, within=within
            )


def engine_of(vectors: NDArray[Any], metric: str, order: Order = "dim_major") -> Any:
    matrix = matrix_of(
        vectors, normalise=metric == "cosine", order=order if metric == "cosine" else "dim_major"
    )
    return cpu_device().build(matrix, metric=metric, max_k=1000, max_rows=128)


@settings(max_examples=10, deadline=None)
@given(data=st.data(), metric=st.sampled_from(["cosine", "dot"]), seed=st.integers(0, 99))
def test_any_mix_of_filters_is_exact(data: st.DataObject, metric: str, seed: int) -> None:
    """One call with any excluded, included and masked rows, any k, whatever ways they take."""
    rng = np.random.default_rng(seed)
    count = data.draw(st.sampled_from([1, 5, 130, COUNT]))
    vectors = rng.standard_normal((count, 6)).astype(np.float32)
    filters = data.draw(st.lists(row_filters(count), min_size=1, max_size=6))
    asked = rng.standard_normal((len(filters), 6)).astype(np.float32)
    engine = engine_of(vectors, metric)
    assert_filtered(engine, vectors, asked, data.draw(st.integers(1, 20)), filters, metric)


@pytest.mark.parametrize("way", [*Way])
@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_each_way_is_exact_over_several_tiles(
    way: Way, metric: str, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles of 256 columns, blocks, ties in pairs, and a call that has to be split."""
    monkeypatch.setattr("kosine.engines.matrix.MOST_COLUMNS", 256)
    monkeypatch.setattr("kosine.engines.matrix.TILE_COLUMNS", 256)
    monkeypatch.setattr("kosine.engines.search_plan.SCORES_BUDGET", 5 * 4 * 256)
    if way is Way.MASKED:
        monkeypatch.setattr(filters_module, "MOST_GATHERED", 0)
        monkeypatch.setattr(filters_module, "MOST_REMADE", 0)
    rng = np.random.default_rng(3)
    vectors = np.repeat(rng.standard_normal((COUNT // 2, 5)), 2, axis=0).astype(np.float32)
    asked = rng.standard_normal((12, 5)).astype(np.float32)
    best = np.argsort(-true_scores(vectors, asked, metric=metric), axis=1)[:, :40].astype(np.int32)
    made: dict[Way, Any] = {
        Way.PRODUCT: lambda _: None,
        Way.REMADE_BLOCKS: lambda rows: RowFilter(excluded=rows),
        Way.MASKED: lambda rows: RowFilter(excluded=rows, included=numbers(COUNT)),
        Way.GATHERED: lambda rows: RowFilter(included=np.sort(rows)),
    }
    filters = [made[way](rows) for rows in best]
    assert {way} == {way_of(each) for each in filters}
    for k in (1, 3, 10, 300):
        assert_filtered(engine_of(vectors, metric, order), vectors, asked, k, filters, metric)


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("own", [1, 40])
@pytest.mark.parametrize("k", [3, 200])
def test_a_shared_mask_and_rows_of_each_query_are_left_out_in_one_call(
    k: int, own: int, metric: str, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best of each query excluded, over several tiles, by blocks and without, with ties in pairs."""
    monkeypatch.setattr("kosine.engines.matrix.MOST_COLUMNS", 256)
    monkeypatch.setattr("kosine.engines.matrix.TILE_COLUMNS", 256)
    rng = np.random.default_rng(4)
    vectors = np.repeat(rng.standard_normal((COUNT // 2, 5)), 2, axis=0).astype(np.float32)
    asked = rng.standard_normal((12, 5)).astype(np.float32)
    mask = rng.random(COUNT) < 0.5
    best = np.argsort(-true_scores(vectors, asked, metric=metric), axis=1)[:, :own].astype(np.int32)
    filters = [RowFilter(mask=mask, excluded=rows) for rows in best]
    assert_filtered(engine_of(vectors, metric, order), vectors, asked, k, [*filters[:-1], None], metric)


def test_excluding_is_exact_however_many_were_among_the_best(order: Order) -> None:
    """None of them, some, all; beside queries that exclude nothing."""
    rng = np.random.default_rng(6)
    vectors = np.repeat(rng.standard_normal((COUNT // 2, 5)), 2, axis=0).astype(np.float32)
    engine = engine_of(vectors, "cosine", order)
    for dropped in (0, 1, 6, 100, 300):
        asked = rng.standard_normal((6, 5)).astype(np.float32)
        ranked = np.argsort(-true_scores(vectors, asked), axis=1).astype(np.int32)
        filters = [RowFilter(excluded=np.append(rows[:dropped], rows[500:520])) for rows in ranked]
        assert_filtered(engine, vectors, asked, 10, [*filters[:3], None, RowFilter(), filters[5]], "cosine")


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_excluded_rows_are_dropped_from_spare_results_exactly(metric: str, order: Order) -> None:
    """Whether none, few or all of the best are excluded, in one batch and call after call."""
    rng = np.random.default_rng(11)
    vectors = rng.standard_normal((2_000, 8)).astype(np.float32)
    engine = engine_of(vectors, metric, order)
    for _ in range(4):
        asked = rng.standard_normal((5, 8)).astype(np.float32)
        best = np.argsort(-true_scores(vectors, asked, metric=metric), axis=1).astype(np.int32)
        filters = [
            RowFilter(excluded=best[query, out])
            for query, out in enumerate((slice(500, 520), slice(3, 4), slice(8, 12), slice(0, 30)))
        ]
        assert_filtered(engine, vectors, asked, 10, [*filters, None], metric)


@pytest.mark.parametrize("part", [{}, {"mask": np.arange(COUNT) % 3 > 0}, {"included": numbers(40)}])
@pytest.mark.parametrize("queries", [1, 6])
@pytest.mark.parametrize("dropped", [0, 1, 20, MOST_REMADE + 20])
def test_numbers_of_no_row_leave_nothing_out(part: dict[str, Any], queries: int, dropped: int) -> None:
    """Whatever they would become as an int32, and by each way."""
    rng = np.random.default_rng(12)
    vectors = rng.standard_normal((COUNT, 5)).astype(np.float32)
    asked = rng.standard_normal((queries, 5)).astype(np.float32)
    order = np.argsort(-true_scores(vectors, asked), axis=1)
    filters = [RowFilter(excluded=rows[:dropped], **part) for rows in order]
    no_rows = np.array([-1, COUNT, 2**31, -(2**31), -(2**63), 2**63 - 1])
    # One only: who is left with too few is searched again, and rightly.
    more = [
        RowFilter(excluded=np.concatenate((rows[:dropped], rows[[dropped]] + 2**32, no_rows)), **part)
        for rows in order
    ]
    engine = engine_of(vectors, "cosine")
    expected = engine.search_filtered(asked, 10, filters)
    assert expected[0].tolist() == engine.search_filtered(asked, 10, more)[0].tolist()
    assert_filtered(engine, vectors, asked, 10, filters, "cosine")


def test_one_query_alone_is_filtered_exactly(order: Order) -> None:
    """By BLAS with a few more results where that is the way of a query by itself, else by the graph."""
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((20_000, 8)).astype(np.float32)
    engine = engine_of(vectors, "cosine", order)
    engine.warm_up((1,), lambda _: None)
    engine._alone = engine._alone or engine._graphs.single_query.blas(engine._matrix, [lambda *_: None])
    for excluded in (0, 1, 100, 120, 300):
        asked = rng.standard_normal((1, 8)).astype(np.float32)
        best = np.argsort(-true_scores(vectors, asked)[0])[:excluded].astype(np.int32)
        assert_filtered(engine, vectors, asked, 10, [RowFilter(excluded=best)], "cosine")


def test_a_dot_query_that_overflows_fails_whatever_its_way() -> None:
    """NaN, as without filters, and only for that query."""
    vectors = np.array([[1e30, 1.0], [1.0, 1.0], [2.0, 1.0]], np.float32)
    engine = engine_of(vectors, "dot")
    asked = np.array([[1e30, 0.0]] * 3 + [[1.0, 0.0]], np.float32)
    ways = [
        RowFilter(excluded=numbers(1)),
        RowFilter(mask=np.array([True, True, False])),
        RowFilter(included=numbers(2)),
        None,
    ]
    _, scores = engine.search_filtered(asked, 2, ways)
    assert [True, True, True, False] == np.isnan(scores).any(axis=1).tolist()


def test_stored_rows_are_taken_as_they_are_kept() -> None:
    """For cosine with length 1; in any order, as often as asked."""
    vectors = np.array([[3.0, 4.0], [0.0, 2.0]], np.float32)
    taken = engine_of(vectors, "cosine").take(np.array([1, 0, 1]))
    np.testing.assert_allclose(taken, [[0.0, 1.0], [0.6, 0.8], [0.0, 1.0]], atol=1e-7)
    np.testing.assert_array_equal(engine_of(vectors, "dot").take(np.array([0])), [[3.0, 4.0]])
