"""What an exact answer is to the bench, against plain NumPy in float64."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kosine.bench import truth as truth_module
from kosine.bench.filters import Findable, draw_excluded
from kosine.bench.truth import Truth
from kosine.errors import StartupError
from tests.kit.oracle import best_first, true_scores

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS, DIM, K = 700, 12, 10
QUERIES = np.random.default_rng(1).standard_normal((20, DIM))


def vectors(rows: int = ROWS, *, dtype: str = "<f4", seed: int = 0) -> NDArray[Any]:
    return (3 * np.random.default_rng(seed).standard_normal((rows, DIM))).astype(dtype)


def answer(matrix: NDArray[Any], query: int, *, metric: str, k: int = K) -> tuple[list[int], list[float]]:
    scores = true_scores(matrix, QUERIES, metric=metric)
    ids = best_first(scores, k)[query]
    return ids.tolist(), scores[query, ids].tolist()


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8"])
@pytest.mark.parametrize("k", [1, 10, ROWS, ROWS + 5])
def test_the_exact_answer_is_all_right(
    metric: str, dtype: str, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the metric, the dtype, k and the number of chunks; fewer rows than k are all of them."""
    monkeypatch.setattr(truth_module, "_CHUNK_BYTES", 4 * 20 * 64)
    matrix = vectors(dtype=dtype)
    truth = Truth(matrix, QUERIES, k=k, metric=metric)
    for query in range(len(QUERIES)):
        verdict = truth.judge(query, *answer(matrix, query, metric=metric, k=k))
        assert (min(k, ROWS), min(k, ROWS)) == (verdict.right, verdict.expected)
        assert verdict.score_error < 1e-12


@pytest.mark.parametrize("chunk", [64, ROWS])
def test_a_worse_row_in_the_place_of_a_better_one_is_wrong(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The eleventh best is not one of the ten best, wherever in the file the better ones are."""
    monkeypatch.setattr(truth_module, "_CHUNK_BYTES", 4 * 20 * chunk)
    matrix = vectors()
    ids, scores = answer(matrix, 0, metric="cosine", k=K + 1)
    truth = Truth(matrix, QUERIES, k=K)
    assert K - 1 == truth.judge(0, [*ids[: K - 1], ids[K]], [*scores[: K - 1], scores[K]]).right


@pytest.mark.parametrize(
    "spoil",
    [
        lambda ids, scores: (ids[:-1], scores[:-1]),
        lambda ids, scores: ([*ids, ids[0]], [*scores, scores[0]]),
        lambda ids, scores: (ids[:0], scores[:0]),
        lambda ids, scores: ([*ids[:-1], ROWS], scores),
        lambda ids, scores: ([*ids[:-1], -1], scores),
        lambda ids, scores: ([*ids[:-1], "Paris"], scores),
    ],
    ids=["too few", "too many", "none", "no such row", "negative", "text"],
)
def test_an_answer_of_another_shape_is_wrong_as_a_whole(spoil: Any) -> None:
    """No part of it earns anything."""
    matrix = vectors()
    verdict = Truth(matrix, QUERIES, k=K).judge(3, *spoil(*answer(matrix, 3, metric="cosine")))
    assert (0, K) == (verdict.right, verdict.expected)


def test_a_row_counts_once_and_a_wrong_score_not_at_all() -> None:
    """Neither a duplicate nor a right row under a wrong score is exact."""
    matrix = vectors()
    truth = Truth(matrix, QUERIES, k=K)
    ids, scores = answer(matrix, 0, metric="cosine")
    assert K - 1 == truth.judge(0, [*ids[:-1], ids[0]], [*scores[:-1], scores[0]]).right
    wrong = truth.judge(0, ids, [scores[0] + 1e-3, *scores[1:]])
    assert K - 1 == wrong.right
    assert wrong.score_error == pytest.approx(1e-3)
    assert math.isinf(truth.judge(0, ["x"] * K, scores).score_error)


def test_rows_that_tie_may_stand_in_for_each_other() -> None:
    """Float32 cannot tell them apart, so a service may return either."""
    matrix = np.repeat(vectors(rows=8), 5, axis=0)
    truth = Truth(matrix, QUERIES, k=3)
    ids, scores = answer(matrix, 0, metric="cosine", k=5)
    for chosen in ([0, 1, 2], [2, 3, 4], [4, 0, 2]):
        assert 3 == truth.judge(0, [ids[i] for i in chosen], [scores[i] for i in chosen]).right


def test_rolled_rows_are_judged_by_where_they_stand_now() -> None:
    """The second content of a reloaded file needs no truth of its own; mixing the two up is noticed."""
    matrix = vectors()
    shift = ROWS // 2
    rolled = np.roll(matrix, shift, axis=0)
    truth = Truth(matrix, QUERIES, k=K)
    ids, scores = answer(rolled, 4, metric="cosine")
    assert K == truth.judge(4, ids, scores, rolled=shift).right
    assert 0 == truth.judge(4, ids, scores, rolled=0).right


FLAGS = np.random.default_rng(2).random(ROWS) < 0.3
BEST = best_first(true_scores(vectors(), QUERIES), 7)
FILTERS = {
    "excluded at random": Findable(excluded=draw_excluded(300, queries=len(QUERIES), rows=ROWS, seed=0)),
    "excluded the best": Findable(excluded=BEST),
    "mask": Findable(flags=FLAGS),
    "both": Findable(excluded=BEST, flags=FLAGS),
    "few": Findable(excluded=BEST[:, :2], flags=np.isin(np.arange(ROWS), BEST[:, 0])),
    "nothing": Findable(flags=np.zeros(ROWS, np.bool_)),
}


@pytest.mark.parametrize("findable", FILTERS.values(), ids=FILTERS)
def test_an_answer_to_a_filtered_query_is_held_against_what_it_may_find(
    findable: Findable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best of the rows that are left, fewer where fewer are, none where none is."""
    monkeypatch.setattr(truth_module, "_CHUNK_BYTES", 4 * 20 * 64)
    matrix = vectors()
    truth = Truth(matrix, QUERIES, k=K, findable=findable)
    scores = true_scores(matrix, QUERIES)
    for query in range(len(QUERIES)):
        left = np.ones(ROWS, np.bool_) if findable.flags is None else findable.flags.copy()
        if findable.excluded is not None:
            left[findable.excluded[query]] = False
        rows = np.flatnonzero(left)
        best = rows[np.argsort(-scores[query, rows], kind="stable")][:K]
        verdict = truth.judge(query, best.tolist(), scores[query, best].tolist())
        assert (len(best), len(best)) == (verdict.right, verdict.expected)
        assert verdict.score_error < 1e-12


@pytest.mark.parametrize("name", ["excluded the best", "mask", "nothing"])
def test_an_answer_that_ignores_the_filter_is_wrong(name: str) -> None:
    """However good its rows are otherwise."""
    matrix = vectors()
    truth = Truth(matrix, QUERIES, k=K, findable=FILTERS[name])
    verdict = truth.judge(0, *answer(matrix, 0, metric="cosine"))
    assert verdict.right < K
    assert verdict.right < verdict.expected or not verdict.expected


def test_what_is_excluded_is_drawn_for_each_query_from_the_seed() -> None:
    """Distinct rows, others for the next query, the same in the next run."""
    drawn = draw_excluded(100, queries=5, rows=1000, seed=3)
    assert [100] * 5 == [len(set(rows)) for rows in drawn.tolist()]
    assert 5 == len({tuple(sorted(rows)) for rows in drawn.tolist()})
    assert drawn.tolist() == draw_excluded(100, queries=5, rows=1000, seed=3).tolist()
    with pytest.raises(StartupError, match="expected at most the 9 rows of the index, got 10"):
        draw_excluded(10, queries=1, rows=9, seed=0)
