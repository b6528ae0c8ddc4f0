"""Law 8: the engine's answer is the float64 oracle's, at every size, and ties go to the lower row.

Cosines are compared within 1e-6 up to 150 dimensions, a little wider above (see `tolerance`). Where vectors
are small integers, products and sums are exact in float32, and rows and scores are compared to the last bit.
"""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosine.engines.matrix import MOST_COLUMNS, ItemMatrix, padded_rows
from kosine.engines.search_plan import ROWS_PER_RESULT
from kosine.errors import LoadCode, LoadError, Stage
from tests.kit.device import cpu_device
from tests.kit.engines import NumpyEngine, matrix_of
from tests.kit.oracle import assert_exact, best_first, tolerance, true_scores
from tests.kit.screened import set_screening

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kosine.engines.engine import Engine
    from kosine.engines.matrix import Order

BATCHES = (1, 2, 7, 16, 128)
MAX_ROWS = 128


def gaussian(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, dtype=np.float32)


def small_integers(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng([seed, *shape]).integers(-2, 3, shape).astype(np.float32)


def engine_over(
    vectors: NDArray[np.float32], *, metric: str = "cosine", max_k: int = 1000, order: Order = "dim_major"
) -> Engine:
    matrix = matrix_of(vectors, normalise=metric == "cosine", order=order)
    return cpu_device().build(matrix, metric=metric, max_k=max_k, max_rows=MAX_ROWS)


def assert_integers_exact(
    engine: Engine, vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> None:
    """By `dot` over small integers: the stable sort's rows, and its scores to the last bit."""
    truth = true_scores(vectors, queries, metric="dot")
    expected = best_first(truth, k)
    rows, scores = engine.search(queries, k)
    np.testing.assert_array_equal(expected, rows)
    np.testing.assert_array_equal(np.take_along_axis(truth, expected, axis=1), scores)


@pytest.mark.parametrize("dim", [1, 2, 3, 64, 100, 768])
@pytest.mark.parametrize("count", [1, 127, 300, 10_000])
def test_answers_are_the_oracles(count: int, dim: int, order: Order) -> None:
    """For every size, batch and k, and where plain top-k begins, the answer is the oracle's."""
    vectors, asked = gaussian(count, dim), gaussian(MAX_ROWS, dim, seed=1)
    truth = true_scores(vectors, asked)
    engine = engine_over(vectors, max_k=10_000, order=order)
    border = count // ROWS_PER_RESULT
    for k in sorted({1, 10, 16, 100, 1000, count, max(1, border), border + 1}):
        for batch in (1, 7) if k > 128 else BATCHES:
            assert_exact(engine.search(asked[:batch], k), truth[:batch], k, within=tolerance(dim))


def test_answers_are_the_oracles_at_every_row_count() -> None:
    """From 1 to 300 rows, at the border of every block and of the padding, nothing is lost or invented."""
    vectors, asked = small_integers(300, 5), small_integers(3, 5, seed=1)
    for count in range(1, 301):
        engine = engine_over(vectors[:count], metric="dot", max_k=10)
        for k in (1, 10):
            assert_integers_exact(engine, vectors[:count], asked, k)


@pytest.mark.parametrize("k", [1, 10, 16, 100, 128, 300])
@pytest.mark.parametrize("count", [2_000, 20_001])
def test_heavy_ties_go_to_the_lower_row(count: int, k: int) -> None:
    """Integer vectors of dimension 3 tie by the thousand; rows come in the order of a stable sort."""
    vectors, asked = small_integers(count, 3), small_integers(16, 3, seed=1)
    assert_integers_exact(engine_over(vectors, metric="dot", max_k=300), vectors, asked, k)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("count", "dim"), [(300, 2), (10_000, 100), (5_001, 768)])
def test_equal_rows_score_equal_wherever_they_are(count: int, dim: int, batch: int, order: Order) -> None:
    """Copies of a row, far apart, at block borders and last, get the same bits and keep their order."""
    copies = sorted({0, 7, 8, 31, 32, 63, 64, 127, 128, 255, count // 2, count - 2, count - 1})
    vectors = gaussian(count, dim)
    vectors[copies] = vectors[0]
    asked = gaussian(batch, dim, seed=1)
    asked[-1] = vectors[0]
    rows, scores = engine_over(vectors, order=order).search(asked, len(copies))
    assert copies == rows[-1].tolist()
    assert {scores[-1, 0]} == set(scores[-1])
    assert abs(scores[-1, 0] - 1.0) <= tolerance(dim)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("count", [300, 10_000, 20_003])
def test_when_all_rows_are_equal_the_first_are_answered(count: int, batch: int, order: Order) -> None:
    """No column of the product is computed in another way than its neighbours."""
    engine = engine_over(np.broadcast_to(gaussian(1, 100), (count, 100)), order=order)
    for k in (1, 10, 100):
        rows, _ = engine.search(gaussian(batch, 100, seed=1), k)
        assert [list(range(k))] * batch == rows.tolist()


def test_padding_is_never_answered(order: Order) -> None:
    """When every true score is negative, the zero columns behind the last row still are not rows."""
    vectors = np.abs(gaussian(10_001, 7))
    asked = -np.abs(gaussian(4, 7, seed=1))
    truth = true_scores(vectors, asked)
    engine = engine_over(vectors, order=order)
    for k in (1, 10, 16, 100, 1000):
        assert_exact(engine.search(asked, k), truth, k, within=tolerance(7))


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("dim", [3, 100, 768])
def test_a_query_is_answered_alike_alone_and_in_a_batch(dim: int, metric: str, order: Order) -> None:
    """Scores agree within the tolerance, by `dot` times both lengths; rows agree where scores are apart."""
    vectors, asked = gaussian(10_000, dim), gaussian(MAX_ROWS, dim, seed=1)
    engine = engine_over(vectors, metric=metric, order=order if metric == "cosine" else "dim_major")
    rows, scores = engine.search(asked, 10)
    longest = np.linalg.norm(vectors, axis=1).max()
    for at, query in enumerate(asked):
        within = tolerance(dim) * (longest * np.linalg.norm(query) if metric == "dot" else 1.0)
        alone_rows, alone_scores = engine.search(query[None], 10)
        np.testing.assert_allclose(alone_scores[0], scores[at], rtol=0, atol=within)
        if np.abs(np.diff(scores[at])).min() > 4 * within:
            assert rows[at].tolist() == alone_rows[0].tolist()


def test_a_smaller_k_is_a_prefix_of_a_larger() -> None:
    """One batch may mix k: the best k are the first k of the best 200, by blocks or not."""
    vectors, asked = gaussian(3_000, 16), gaussian(5, 16, seed=1)
    engine = engine_over(vectors, max_k=200)
    for largest in (16, 128, 200):
        rows, scores = engine.search(asked, largest)
        for k in range(1, largest, 9):
            found = engine.search(asked, k)
            np.testing.assert_array_equal(rows[:, :k], found[0])
            np.testing.assert_array_equal(scores[:, :k], found[1])


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 129])
def test_k_beyond_the_rows_answers_all_rows(count: int, order: Order) -> None:
    """`rows < k <= max_k` is no error: every row comes, best first."""
    vectors, asked = gaussian(count, 8), gaussian(3, 8, seed=1)
    engine = engine_over(vectors, order=order)
    for k in (count + 1, 1000):
        assert_exact(engine.search(asked, k), true_scores(vectors, asked), k, within=tolerance(8))


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 3_000),
    dim=st.integers(1, 40),
    batch=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_any_shape_is_exact(count: int, dim: int, batch: int, seed: int, data: st.DataObject) -> None:
    """Whatever the shapes, integer vectors are answered as a stable sort would, to the last bit."""
    k = data.draw(st.integers(1, min(count + 5, 1000)), label="k")
    vectors, asked = small_integers(count, dim, seed=seed), small_integers(batch, dim, seed=seed + 1)
    assert_integers_exact(engine_over(vectors, metric="dot"), vectors, asked, k)


@pytest.mark.parametrize(
    ("batch", "calls"), [(1, [1]), (4, [4]), (5, [3, 2]), (9, [3, 3, 3]), (10, [4, 3, 3])]
)
def test_a_batch_that_is_split_answers_as_one(
    batch: int, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Queries beyond the memory of one call are scored in even turns; nobody can tell from the answer."""
    vectors, asked = small_integers(1_000, 6), small_integers(batch, 6, seed=1)
    four_queries = 4 * 4 * padded_rows(len(vectors))
    monkeypatch.setattr("kosine.engines.search_plan.SCORES_BUDGET", four_queries)
    engine: Any = engine_over(vectors, metric="dot", max_k=10)
    answer, seen = engine._answer, list[int]()

    def counted(queries: Any, *more: Any) -> Any:
        seen.append(len(queries))
        return answer(queries, *more)

    monkeypatch.setattr(engine, "_answer", counted)
    assert_integers_exact(engine, vectors, asked, 10)
    assert calls == seen


@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("count", [256, 257, 1_000, 2_049])
def test_answers_over_several_tiles_are_the_oracles(
    count: int, metric: str, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the tile a row lies in, and however few rows the last has, nobody can tell from the answer."""
    monkeypatch.setattr("kosine.engines.matrix.MOST_COLUMNS", 256)
    monkeypatch.setattr("kosine.engines.matrix.TILE_COLUMNS", 256)
    vectors, asked = gaussian(count, 16), gaussian(9, 16, seed=1)
    truth = true_scores(vectors, asked, metric=metric)
    engine = engine_over(vectors, metric=metric, order=order if metric == "cosine" else "dim_major")
    longest = 1.0 if metric == "cosine" else np.linalg.norm(vectors, axis=1).max() * np.linalg.norm(asked)
    for unmerged in (1, 2**18):
        monkeypatch.setattr("kosine.engines.cosine_graph.MOST_UNMERGED", unmerged)
        for k in (1, 3, 4, 10, 100, 256, 257, 1000):
            assert_exact(engine.search(asked, k), truth, k, within=tolerance(16) * longest)


@pytest.mark.parametrize("k", [1, 10, 300])
def test_ties_across_tiles_go_to_the_lower_row(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Integer vectors tie by the hundred in every tile; rows come in the order of a stable sort."""
    monkeypatch.setattr("kosine.engines.matrix.MOST_COLUMNS", 256)
    monkeypatch.setattr("kosine.engines.matrix.TILE_COLUMNS", 256)
    vectors, asked = small_integers(2_000, 3), small_integers(16, 3, seed=1)
    assert_integers_exact(engine_over(vectors, metric="dot", max_k=300), vectors, asked, k)


def test_length_of_a_query_changes_nothing_by_cosine(order: Order) -> None:
    """A power of two times a query gives the same bits, from 2**-40 to 2**40."""
    engine = engine_over(gaussian(1_000, 32), order=order)
    query = gaussian(1, 32, seed=1)
    rows, scores = engine.search(query, 10)
    for exponent in (-40, -1, 7, 40):
        scaled_rows, scaled_scores = engine.search(np.ldexp(query, exponent), 10)
        np.testing.assert_array_equal(rows, scaled_rows)
        np.testing.assert_array_equal(scores, scaled_scores)


def test_a_dot_product_that_may_overflow_is_nan_for_that_query_alone() -> None:
    """Past float32 the order of rows is lost, so all scores of that query are NaN; its mates are answered."""
    vectors = small_integers(500, 4)
    vectors[17] = 2e20
    engine = engine_over(vectors, metric="dot")
    asked = small_integers(3, 4, seed=1)
    asked[1] = (3e18, -3e18, 3e18, -3e18)
    _, scores = engine.search(asked, 10)
    assert [False, True, False] == np.isnan(scores).all(axis=1).tolist()
    assert [False, True, False] == np.isnan(scores).any(axis=1).tolist()


def test_a_large_dot_product_that_fits_is_answered() -> None:
    """1e38 is a float32: no query is refused that cannot overflow."""
    engine = engine_over(np.array([[1e19], [-1e19]], np.float32), metric="dot")
    rows, scores = engine.search(np.array([[1e19]], np.float32), 2)
    assert [[0, 1]] == rows.tolist()
    np.testing.assert_allclose(scores, [[1e38, -1e38]], rtol=1e-6)


def test_warm_up_of_an_equally_large_matrix_computes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a first engine has warmed is warm for the next of its size, and not for one much larger."""
    cpu_device()
    from kosine.engines.cosine_graph import CosineGraph
    from kosine.engines.search_graphs import SearchGraphs

    graphs = SearchGraphs("/CPU:0")
    counted = dict.fromkeys((1_000, 1_200, 2_000), 0)
    for rows in counted:
        engine = CosineGraph(
            matrix_of(gaussian(rows, 4)), metric="cosine", max_k=150, max_rows=MAX_ROWS, graphs=graphs
        )

        def of_tile(*args: Any, rows: int = rows, own: Any = engine._of_tile) -> Any:
            counted[rows] += 1
            return own(*args)

        seen = list[str]()
        monkeypatch.setattr(engine, "_of_tile", of_tile)
        monkeypatch.setattr(graphs.single_query, "blas", lambda *_: None)
        engine.warm_up((1, 128, 8), seen.append)
        filtered = [f"k={k}, 128 queries, {how} left out" for k in (150, 10) for how in ("places", "masks")]
        assert [*filtered, *(f"k=10, {size} queries, none left out" for size in (128, 8, 1))] == seen
    assert {1_000: 7, 1_200: 0, 2_000: 7} == counted


def test_warm_up_of_many_rows_takes_the_calls_of_one_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a start takes as long for a million rows; a search of all tiles needs no more memory than that."""
    cpu_device()
    from kosine.engines.cosine_graph import CosineGraph
    from kosine.engines.search_graphs import SearchGraphs

    rows = MOST_COLUMNS + 1
    graphs = SearchGraphs("/CPU:0")
    monkeypatch.setattr(graphs.single_query, "blas", lambda *_: None)
    engine = CosineGraph(
        matrix_of(gaussian(rows, 2)), metric="cosine", max_k=150, max_rows=MAX_ROWS, graphs=graphs
    )
    asked = list[int]()

    def of_tile(number: int, *args: Any, own: Any = engine._of_tile) -> Any:
        asked.append(number)
        return own(number, *args)

    monkeypatch.setattr(engine, "_of_tile", of_tile)
    engine.warm_up((1, 8), lambda _: None)
    last = len(engine._tiles) - 1
    assert (2, [last] * 6) == (last, asked)


def test_nothing_is_traced_once_a_metric_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines of any size, and batches and k never seen before, run on graphs that are there."""
    import tensorflow as tf

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something is traced")

    kinds: list[tuple[str, Order]] = [("cosine", "dim_major"), ("cosine", "row_major"), ("dot", "dim_major")]
    for metric, order in kinds:
        cpu_device().graphs.prepare(metric, order)
    set_screening(monkeypatch, on=True)
    monkeypatch.setattr(tf.Graph, "__init__", refuse)
    for metric, order in kinds:
        engine = engine_over(gaussian(3_000, 8), max_k=200, metric=metric, order=order)
        for batch in range(1, 20):
            engine.search(gaussian(batch, 8), 10 * batch)


def test_the_matrix_is_no_part_of_a_graph() -> None:
    """Graphs are a few kilobytes and capture nothing; an engine reads the memory its matrix came in."""
    device = cpu_device()
    kinds: list[tuple[str, Order]] = [("cosine", "dim_major"), ("cosine", "row_major"), ("dot", "dim_major")]
    for metric, order in kinds:
        device.graphs.prepare(metric, order)
    graphs: list[Any] = [device.graphs.of("cosine", "screened", by_block=True)]
    for by_block in (False, True):
        graphs += [device.graphs.of(*kind, by_block=by_block) for kind in kinds]
    for graph in graphs:
        assert graph.graph.as_graph_def().ByteSize() < 30_000
        assert [] == graph.captured_inputs
    matrix = matrix_of(gaussian(10_000, 100))
    engine = device.build(matrix, metric="cosine", max_k=1000, max_rows=MAX_ROWS)
    query = matrix.take(np.array([3]))
    assert [[3]] == engine.search(query, 1)[0].tolist()
    matrix.data[0, :, 9_000] = 2 * query[0]
    assert [[9_000]] == engine.search(query, 1)[0].tolist()


def test_close_gives_the_matrix_back() -> None:
    """After close nothing holds the memory, with no collection; a search says so instead of crashing."""
    matrix = matrix_of(gaussian(1_000, 10))
    memory = weakref.ref(matrix.data.base)
    engine = cpu_device().build(matrix, metric="cosine", max_k=100, max_rows=MAX_ROWS)
    del matrix
    engine.search(gaussian(2, 10), 5)
    assert memory() is not None
    gc.disable()
    engine.close()
    gone = memory() is None
    gc.enable()
    assert gone
    with pytest.raises(RuntimeError, match="closed"):
        engine.search(gaussian(2, 10), 5)


def misaligned(shape: tuple[int, int]) -> NDArray[np.float32]:
    buffer = np.zeros(shape[0] * shape[1] + 32, np.float32)
    offset = next(at for at in range(32) if (buffer.ctypes.data + 4 * at) % 64 == 4)
    return buffer[offset : offset + shape[0] * shape[1]].reshape(1, *shape)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: misaligned((3, 128)), "multiple of 64 bytes"),
        (lambda: ItemMatrix.allocate(10, 3).data[:, :, :10], "in C order"),
        (lambda: ItemMatrix.allocate(10, 3).data.astype(np.float64), "float64"),
        (lambda: np.zeros((1, 3, 100), np.float32), r"\[1, 3, 100\]"),
    ],
    ids=["misaligned", "view", "float64", "not padded"],
)
def test_memory_that_would_abort_the_process_is_refused(make: Callable[[], Any], said: str) -> None:
    """TensorFlow aborts on misaligned memory; what is not as `allocate` makes it never reaches it."""
    with pytest.raises(LoadError, match=said) as caught:
        cpu_device().build(ItemMatrix(make(), 10), metric="cosine", max_k=10, max_rows=1)
    assert LoadCode.BUILD_FAILED is caught.value.code
    assert Stage.BUILD is caught.value.stage


def test_a_full_device_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow's ResourceExhaustedError becomes `out_of_device_memory`, with the bytes that were wanted."""
    import tensorflow as tf

    matrix = matrix_of(gaussian(10, 3))

    def full(*_: object, **__: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "failed to allocate memory\nsecond line")

    monkeypatch.setattr("kosine.engines.cosine_graph._adopt", full)
    with pytest.raises(LoadError, match=r"cannot hold 1536 bytes .* failed to allocate memory;") as caught:
        cpu_device().build(matrix, metric="cosine", max_k=10, max_rows=1)
    assert LoadCode.OUT_OF_DEVICE_MEMORY is caught.value.code
    assert "second line" not in str(caught.value)


@pytest.mark.parametrize(
    ("queries", "k", "said"),
    [
        (np.ones((1, 4), np.float32), 1, r"\[B, 3\], got float32 \[1, 4\]"),
        (np.ones(3, np.float32), 1, r"got float32 \[3\]"),
        (np.ones((1, 3)), 1, "got float64"),
        (np.ones((1, 3), np.float32), 0, r"k in 1\.\.10, got 0"),
        (np.ones((1, 3), np.float32), 11, r"k in 1\.\.10, got 11"),
    ],
)
def test_a_broken_call_is_refused_by_name(queries: Any, k: int, said: str) -> None:
    """A defect in serving shows as one line, without the vector TensorFlow would print."""
    with pytest.raises(ValueError, match=said):
        engine_over(gaussian(20, 3), max_k=10).search(queries, k)


def test_the_numpy_engine_of_the_tests_agrees() -> None:
    """What other tests use in its place answers alike, ties and all."""
    vectors, asked = small_integers(700, 3), small_integers(9, 3, seed=1)
    stand_in = NumpyEngine(matrix=matrix_of(vectors, normalise=False), metric="dot")
    for k in (1, 10, 1000):
        assert_integers_exact(stand_in, vectors, asked, k)
