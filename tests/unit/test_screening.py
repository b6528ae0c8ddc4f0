"""Screening: rounded products choose, and what they choose is proven or searched again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kosine.engines.screening import Screening
from tests.kit.device import cpu_device
from tests.kit.engines import matrix_of
from tests.kit.oracle import assert_exact, tolerance, true_scores
from tests.kit.screened import set_screening

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGE = {"k": 10, "rows": 100_000, "dim": 384, "queries": 64}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, True),
        ({"queries": 1}, True),
        ({"rows": 5_000}, False),
        ({"rows": 6_000, "dim": 768}, True),
        ({"rows": 6_000, "dim": 768, "k": 12}, False),
        ({"k": 100}, True),
        ({"k": 101}, False),
        ({"k": 50, "queries": 128}, True),
        ({"k": 128, "queries": 50}, True),
        ({"k": 129, "queries": 10}, False),
        ({"k": 128, "dim": 4096}, False),
        ({"k": 128, "dim": 4096, "queries": 2}, True),
    ],
    ids=str,
)
def test_a_call_is_screened_where_that_saves_something(asked: dict[str, int], expected: bool) -> None:
    """Neither of few items, nor for many results."""
    assert expected is Screening().worth_trying(**LARGE | asked)


def test_more_rows_pass_where_proofs_are_missing_and_screening_is_given_up_where_that_does_not_help() -> None:
    """Then one call in 64 asks whether it still is so; after calls that went well it is taken up again."""
    screening = Screening()
    assert 22 == screening.passing(10)
    passing = list[int]()
    while screening.worth_trying(**LARGE) and len(passing) < 500:
        screening.note(unproven=16, queries=64)
        passing.append(screening.passing(10))
    assert [22, 34, 58, 106] == sorted(set(passing))
    assert [False] * 62 + [True] == [screening.worth_trying(**LARGE) for _ in range(63)]
    while not screening.worth_trying(**LARGE):
        screening.note(unproven=0, queries=64)
    assert screening.worth_trying(**LARGE)


def test_now_and_then_a_query_without_proof_changes_nothing() -> None:
    """One in a batch of 64, one batch in 20: searching it again costs less than passing more."""
    screening = Screening()
    for call in range(1_000):
        screening.note(unproven=int(call % 20 == 0), queries=64)
    assert 22 == screening.passing(10)


def unit(rows: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    vectors = np.random.default_rng([seed, rows, dim]).standard_normal((rows, dim))
    scaled: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(
        np.float32
    )
    return scaled


def in_bfloat16(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rounded to nearest, ties to even, on the bits."""
    bits = vectors.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32).astype(np.float64)


@pytest.mark.parametrize("dim", [1, 3, 100, 3000])
@pytest.mark.parametrize("rows", [1, 1_000])
def test_items_are_rounded_to_nearest_and_the_worst_is_known(rows: int, dim: int) -> None:
    """Done in pieces, it is what rounding the bits gives."""
    cpu_device()
    from kosine.engines.screened_scores import round_items

    items = unit(rows, dim)
    items[rows // 2, 0] = 1 + 2.0**-8 - 2.0**-20
    copy = np.zeros(items.shape, np.uint16)
    worst = round_items(items, copy)
    expected = in_bfloat16(items)
    np.testing.assert_array_equal(expected, (copy.astype(np.uint32) << 16).view(np.float32))
    np.testing.assert_allclose(worst, np.linalg.norm(items - expected, axis=1).max(), rtol=1e-5)


@pytest.mark.parametrize("dim", [1, 3, 100, 3000])
def test_no_rounded_score_is_farther_off_than_is_said(dim: int) -> None:
    """Of random units, and of the worst: every number half way between two of bfloat16."""
    cpu_device()
    import tensorflow as tf

    from kosine.engines.screened_scores import _half_step, _off_by, _rounded_product, round_items

    half_way = np.full((1, dim), (1 + 2.0**-8) / np.sqrt(dim), np.float32)
    half_way /= np.linalg.norm(half_way)
    items, queries = np.vstack((unit(500, dim), half_way)), np.vstack((unit(20, dim, seed=1), half_way))
    exact = queries.astype(np.float64) @ items.T.astype(np.float64)
    copy = np.zeros(items.shape, np.uint16)
    bound = _off_by(tf.constant(queries), round_items(items, copy)).numpy()[:, None]
    assert (np.abs(in_bfloat16(queries) @ in_bfloat16(items).T - exact) <= bound).all()
    here = tf.cast(_rounded_product(tf.constant(queries), tf.bitcast(copy, tf.bfloat16)), tf.float32)
    off = np.abs(here.numpy() - exact)
    assert (off <= bound + _half_step(here).numpy()).all()


def test_half_a_step_is_half_the_distance_to_the_next_number_away_from_zero() -> None:
    """Of either sign, inside a power of two and at its ends."""
    cpu_device()
    import tensorflow as tf

    from kosine.engines.screened_scores import _half_step

    scores = [0.5, 0.75, 0.99609375, 1.0, -0.5, -0.25, 2.0**-20]
    steps = _half_step(tf.constant(scores)).numpy().tolist()
    assert [2.0**-9, 2.0**-9, 2.0**-9, 2.0**-8, 2.0**-9, 2.0**-10, 2.0**-28] == steps


def screened_engine(vectors: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch) -> Any:
    set_screening(monkeypatch, on=True)
    matrix = matrix_of(vectors, order="row_major")
    return cpu_device().build(matrix, metric="cosine", max_k=200, max_rows=128)


@pytest.mark.parametrize("apart", [0.0, 1e-5, 1e-3, 1e-2])
@pytest.mark.parametrize("near", [5, 50, 3_000])
def test_near_ties_are_told_apart(near: int, apart: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of a row that differ by less than rounding does, fewer or more than pass: all are in order."""
    vectors = unit(6_000, 64)
    copies = np.random.default_rng(1).permutation(6_000)[:near]
    vectors[copies] = vectors[copies[0]] + apart * unit(near, 64, seed=2)
    asked = np.vstack((vectors[copies[:1]] + 1e-3 * unit(1, 64, seed=3), unit(7, 64, seed=4)))
    engine = screened_engine(vectors, monkeypatch)
    truth = true_scores(vectors, asked)
    for _ in range(40):
        assert_exact(engine.search(asked, 10), truth, 10, within=tolerance(64))


@pytest.mark.parametrize("queries", [2, 15, 16, 17, 64, 100])
def test_a_call_that_would_look_up_too_much_is_made_in_parts(
    queries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell from the answer; none but the parts is made."""
    vectors, asked = unit(6_000, 64), unit(queries, 64, seed=1)
    engine = screened_engine(vectors, monkeypatch)
    monkeypatch.setattr("kosine.engines.screening._MOST_ROWS_LOOKED_UP", 16 * 22)
    monkeypatch.setattr(engine, "_by_float32", None)
    assert_exact(engine.search(asked, 10), true_scores(vectors, asked), 10, within=tolerance(64))


@pytest.mark.parametrize("positive", [0, 3, 15])
def test_where_most_scores_are_negative_the_best_are_found_all_the_same(
    positive: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is above 0, or fewer than are wanted, or than pass: what passes then may be the worst."""
    vectors, asked = unit(6_000, 8), unit(1, 8, seed=1)
    vectors[(vectors @ asked[0]) > 0] *= -1
    vectors[np.random.default_rng(2).permutation(6_000)[:positive]] *= -1
    engine = screened_engine(vectors, monkeypatch)
    asked = np.vstack((asked, unit(3, 8, seed=3)))
    assert_exact(engine.search(asked, 10), true_scores(vectors, asked), 10, within=tolerance(8))
