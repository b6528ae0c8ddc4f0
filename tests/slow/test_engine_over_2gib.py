"""Past the sizes where TensorFlow's graphs (2 GB) and its indices (2**31) end."""

from __future__ import annotations

import numpy as np
import pytest

from kosine.engines.matrix import ItemMatrix
from tests.kit.device import cpu_device
from tests.kit.oracle import assert_exact, tolerance, true_scores

pytestmark = pytest.mark.slow

WARM_BATCHES = (8, 1)


def test_a_matrix_over_2_gib_is_searched_to_its_last_row() -> None:
    """1.5M x 384 float32 are 2.3 GB: a captured constant holds them, a Const node could not."""
    rows, dim = 1_500_000, 384
    matrix = ItemMatrix.allocate(rows, dim)
    assert matrix.nbytes > 2**31
    # The first is asked for by warm-up, and so must be a unit vector, as all are in a service.
    places = [rows - 1, 1_399_999, 700_001, 128, 0]
    vectors = np.random.default_rng(0).standard_normal((len(places), dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for place, vector in zip(places, vectors, strict=True):
        [(_, column)] = matrix.spans(place, place + 1)
        column[:, 0] = vector
    engine = cpu_device().build(matrix, metric="cosine", max_k=1000, max_rows=128)
    engine.warm_up(WARM_BATCHES, lambda _: None)
    found, scores = engine.search(7.5 * vectors, 1)
    assert [[place] for place in places] == found.tolist()
    np.testing.assert_allclose(scores, 1.0, rtol=0, atol=tolerance(dim))
    found, scores = engine.search(np.abs(vectors[:1]), 1000)
    assert set(found[0][scores[0] > 0].tolist()) <= set(places)
    zeros = found[0][scores[0] == 0].tolist()
    expected = [row for row in range(1010) if row not in places][: len(zeros)]
    assert expected == zeros


def test_a_million_rows_are_answered_like_the_oracle() -> None:
    """1M x 128, random: the oracle's rows in every bucket, in a batch and alone."""
    rows, dim = 1_000_000, 128
    rng = np.random.default_rng(1)
    matrix = ItemMatrix.allocate(rows, dim)
    for _, columns in matrix.spans(0, rows):
        columns[...] = rng.standard_normal(columns.shape, dtype=np.float32)
        columns[...] /= np.linalg.norm(columns, axis=0)
    asked = rng.standard_normal((3, dim), dtype=np.float32)
    truth = true_scores(matrix.take(np.arange(rows)), asked)
    engine = cpu_device().build(matrix, metric="cosine", max_k=16384, max_rows=128)
    engine.warm_up(WARM_BATCHES, lambda _: None)
    for k in (1, 10, 100, 1000, 5000, 16384):
        assert_exact(engine.search(asked, k), truth, k, within=tolerance(dim))
        assert_exact(engine.search(asked[:1], k), truth[:1], k, within=tolerance(dim))


def test_a_batch_with_more_scores_than_an_int32_counts_is_split() -> None:
    """128 queries over 20M rows are 2.56e9 scores: answered in turns, each row right."""
    rows = 20_000_000
    matrix = ItemMatrix.allocate(rows, 1)
    best = [rows - 1, 5, 10_000_000, 16_777_217]
    for place, value in zip(best, (4.0, 3.0, 2.0, 1.0), strict=True):
        [(_, column)] = matrix.spans(place, place + 1)
        column[...] = value
    engine = cpu_device().build(matrix, metric="dot", max_k=10, max_rows=128)
    asked = np.arange(1, 129, dtype=np.float32)[:, None]
    found, scores = engine.search(asked, 6)
    assert [[*best, 0, 1]] * 128 == found.tolist()
    np.testing.assert_array_equal(asked * np.array([4, 3, 2, 1, 0, 0], np.float32), scores)
