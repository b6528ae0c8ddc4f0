"""From bytes to the matrix: equal to a float64 oracle whatever the file looks like, in bounded memory."""

from __future__ import annotations

import hashlib
import threading
import tracemalloc
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kosine.engines.matrix import ItemMatrix
from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.artifact import LOAD_BUFFER_BYTES, MatrixArtifact, read_matrix
from kosine.loading.layout import plan_matrix
from kosine.loading.pace import Pace
from kosine.npy.header import read_header
from tests.kit.npy_files import BytesReader, in_order, npy_bytes, unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kosine.engines.matrix import Order
    from kosine.settings import Layout

LAYOUTS: tuple[Layout, ...] = ("rows", "columns", "transposed")
FORMS: tuple[tuple[Layout, str], ...] = (
    ("rows", "C"),
    ("rows", "F"),
    ("columns", "C"),
    ("columns", "F"),
    ("transposed", "C"),
)
TOLERANCE = {"f2": 2e-3, "f4": 2e-7, "f8": 2e-7}


def _arranged(vectors: NDArray[Any], layout: Layout, order: str) -> NDArray[Any]:
    if layout == "transposed":
        return np.transpose(vectors).flatten()
    return in_order(vectors if layout == "rows" else vectors.T, order)


def _load(
    content: bytes, *, layout: Layout = "rows", dim: int | None = None, metric: str = "cosine", **options: Any
) -> MatrixArtifact:
    reader = BytesReader(content)
    plan = plan_matrix(read_header(reader), layout=layout, dim=dim)
    return read_matrix(reader, plan, metric=metric, **options)


def _items(artifact: MatrixArtifact) -> NDArray[np.float32]:
    return artifact.matrix.take(np.arange(artifact.matrix.rows))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("code", ["f2", "f4", "f8"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize(("layout", "order"), FORMS)
def test_a_good_file_equals_the_oracle(
    version: tuple[int, int], code: str, byte_order: str, layout: Layout, order: str
) -> None:
    """N3, N7: every version, dtype, byte order, order and layout gives the same unit vectors."""
    vectors = unit_rows(300, 17)
    content = npy_bytes(_arranged(vectors, layout, order).astype(byte_order + code), version=version)
    artifact = _load(content, layout=layout, dim=17)
    np.testing.assert_allclose(_items(artifact), vectors, rtol=0, atol=TOLERANCE[code])
    assert not artifact.matrix.data[0, :, 300:].any()
    assert artifact.dtype == byte_order + code
    assert artifact.digest == hashlib.sha256(content).digest()


@pytest.mark.parametrize("wanted", ["dim_major", "row_major"])
@pytest.mark.parametrize(("layout", "order"), FORMS)
def test_a_matrix_of_several_tiles_equals_the_oracle(
    layout: Layout, order: str, wanted: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the borders of tiles, chunks and blocks fall, every number is where it belongs."""
    monkeypatch.setattr("kosine.engines.matrix.MOST_COLUMNS", 256)
    monkeypatch.setattr("kosine.engines.matrix.TILE_COLUMNS", 256)
    vectors = unit_rows(1_100, 17)
    content = npy_bytes(_arranged(vectors, layout, order))
    for chunk_bytes in (1_000, 8_192, 2**20):
        artifact = _load(content, layout=layout, dim=17, order=wanted, chunk_bytes=chunk_bytes)
        assert artifact.matrix.data.shape == ((5, 17, 256) if wanted == "dim_major" else (5, 256, 17))
        np.testing.assert_allclose(_items(artifact), vectors, rtol=0, atol=TOLERANCE["f8"])
        assert not artifact.matrix.dim_major[4, :, 1_100 - 4 * 256 :].any()


@pytest.mark.parametrize(("layout", "order"), [("rows", "C"), ("rows", "F"), ("transposed", "C")])
def test_a_wrong_layout_is_refused_over_several_tiles(
    layout: Layout, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other reading crosses tiles, and is read in the order of the file all the same."""
    monkeypatch.setattr("kosine.engines.matrix.MOST_COLUMNS", 256)
    monkeypatch.setattr("kosine.engines.matrix.TILE_COLUMNS", 256)
    vectors = unit_rows(500, 300)
    wrong = in_order(vectors.T, order) if layout == "rows" else vectors.ravel()
    with pytest.raises(LoadError) as refused:
        _load(npy_bytes(wrong), layout=layout, dim=None if layout == "rows" else 300)
    assert refused.value.code is LoadCode.LAYOUT_MISMATCH


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=st.integers(1, 400),
    dim=st.integers(1, 40),
    form=st.sampled_from(FORMS),
    dtype=st.sampled_from(["<f2", ">f4", "<f4", "<f8", ">f8"]),
    metric=st.sampled_from(["cosine", "dot"]),
    chunk_bytes=st.integers(4, 3000),
    wanted=st.sampled_from(["dim_major", "row_major"]),
    seed=st.integers(0, 2**32),
)
def test_any_file_equals_the_oracle_at_any_chunk_size(
    rows: int,
    dim: int,
    form: tuple[Layout, str],
    dtype: str,
    metric: str,
    chunk_bytes: int,
    wanted: Order,
    seed: int,
) -> None:
    """Seams between chunks fall anywhere; norms are the file's; cosine items have norm 1 within 1e-6."""
    layout, order = form
    stored = (5 * np.random.default_rng(seed).standard_normal((rows, dim))).astype(dtype)
    content = npy_bytes(_arranged(stored, layout, order))
    artifact = _load(
        content,
        layout=layout,
        dim=dim,
        metric=metric,
        order=wanted,
        check_layout=False,
        chunk_bytes=chunk_bytes,
    )
    exact = stored.astype(np.float32).astype(np.float64)
    norms = np.linalg.norm(exact, axis=1)
    expected = exact / norms[:, np.newaxis] if metric == "cosine" else exact
    np.testing.assert_allclose(_items(artifact), expected, rtol=3e-7, atol=1e-9)
    np.testing.assert_allclose((artifact.norm_min, artifact.norm_max), (norms.min(), norms.max()), rtol=2e-7)
    if metric == "cosine":
        lengths = np.linalg.norm(_items(artifact).astype(np.float64), axis=1)
        assert np.abs(lengths - 1.0).max() < 1e-6


@pytest.mark.parametrize("magnitude", [1e-44, 1e-38, 1e-30, 1e-20, 1e20, 1e30, 3e38])
@pytest.mark.parametrize("order", ["C", "F"])
def test_items_of_any_float32_magnitude_are_normalised(magnitude: float, order: str) -> None:
    """Squares of 1e20 overflow a float32, those of 1e-30 vanish: norms are summed in float64."""
    vectors = np.array([[1.0, -1.0, 1.0, 1.0], [3.0, 4.0, 0.0, 0.0]])
    vectors[0] *= magnitude
    stored = in_order(vectors.astype(np.float32), order)
    expected = stored.astype(np.float64) / np.linalg.norm(stored.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(_items(_load(npy_bytes(stored))), expected, rtol=2e-7)


def test_dot_takes_items_as_they_are() -> None:
    """For `dot` nothing is scaled, and a row of zeros is a legitimate item."""
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    vectors[2] = 0.0
    artifact = _load(npy_bytes(vectors), metric="dot")
    np.testing.assert_array_equal(_items(artifact), vectors)
    assert artifact.norm_min == 0.0


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("value", "code"),
    [(np.nan, LoadCode.NOT_FINITE), (np.inf, LoadCode.NOT_FINITE), (0.0, LoadCode.ZERO_ROWS)],
)
def test_bad_rows_are_counted_and_the_first_ten_named(value: float, code: LoadCode, order: str) -> None:
    """N6: the whole file is refused with the count and the numbers of the first ten rows."""
    vectors = in_order(unit_rows(20_000, 8), order)
    bad = np.arange(5, 20_000, 1000)
    vectors[bad] = value
    with pytest.raises(LoadError) as refused:
        _load(npy_bytes(vectors), chunk_bytes=2**16)
    assert (refused.value.code, refused.value.stage) == (code, Stage.CHECK)
    assert refused.value.facts == {"count": 20, "rows": bad[:10].tolist()}
    assert "20 of 20000" in refused.value.detail
    assert "the first at 5, 1005, 2005" in refused.value.detail


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
def test_a_signalling_nan_is_refused_without_a_warning(dtype: str, order: str) -> None:
    """Bits that no computation makes: a cast of them warns, and warnings are errors here."""
    vectors = in_order(unit_rows(300, 4).astype(dtype), order)
    bits = vectors.view(f"<u{vectors.itemsize}")
    bits[7, 2] = np.array(np.inf, dtype=dtype).view(bits.dtype) + 1
    with pytest.raises(LoadError) as refused:
        _load(npy_bytes(vectors))
    assert refused.value.facts == {"count": 1, "rows": [7]}


def test_a_wrong_layout_is_named_before_the_zero_rows_it_makes() -> None:
    """A component that is always zero looks like a zero row in the wrong reading; that is not the fault."""
    vectors = unit_rows(64, 8)
    vectors[:, 3] = 0.0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with pytest.raises(LoadError) as refused:
        _load(npy_bytes(vectors.T))
    assert refused.value.code is LoadCode.LAYOUT_MISMATCH


@pytest.mark.parametrize(
    ("name", "layout", "code"),
    [
        ("columns", "rows", LoadCode.LAYOUT_MISMATCH),
        ("rows", "columns", LoadCode.LAYOUT_MISMATCH),
        ("flat rows", "transposed", LoadCode.LAYOUT_MISMATCH),
        ("flat raw", "transposed", LoadCode.LAYOUT_UNPROVEN),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("chunk_bytes", [2**10, 2**23])
def test_a_wrong_layout_is_refused_unless_told_to_trust(
    name: str, layout: Layout, code: LoadCode, order: str, chunk_bytes: int
) -> None:
    """Evidence holds over chunks and orders; `check_layout: false` takes the file as declared."""
    vectors = unit_rows(500, 16)
    arrays = {
        "columns": vectors.T,
        "rows": vectors,
        "flat rows": vectors.ravel(),
        "flat raw": 2 * vectors.T.ravel(),
    }
    content = npy_bytes(in_order(arrays[name].astype(np.float32), order))
    dim = 16 if layout == "transposed" else None
    with pytest.raises(LoadError) as refused:
        _load(content, layout=layout, dim=dim, chunk_bytes=chunk_bytes)
    assert refused.value.code is code
    _load(content, layout=layout, dim=dim, check_layout=False, chunk_bytes=chunk_bytes)


def test_one_item_that_is_not_unit_keeps_a_2d_file_acceptable() -> None:
    """A raw row among unit rows proves no other layout."""
    vectors = unit_rows(500, 16)
    vectors[400] *= 3
    artifact = _load(npy_bytes(vectors), chunk_bytes=2**12)
    assert artifact.norm_max == pytest.approx(3.0)


@pytest.mark.parametrize("order", ["C", "F"])
def test_one_unit_axis_is_no_evidence(order: str) -> None:
    """Only where all vectors of the other reading have norm 1 a 2-D file is refused."""
    vectors = 3 * unit_rows(500, 16)
    vectors[:, 0] /= np.linalg.norm(vectors[:, 0])
    artifact = _load(npy_bytes(in_order(vectors, order)))
    assert artifact.norm_max <= 3.0


def test_the_flat_file_of_the_cosine_api_is_read() -> None:
    """The seed's file: float32, 1-D, `np.transpose(unit_rows).flatten()`, dim 100."""
    vectors = unit_rows(10_000, 100).astype(np.float32)
    artifact = _load(npy_bytes(np.transpose(vectors).flatten()), layout="transposed", dim=100)
    np.testing.assert_allclose(_items(artifact), vectors, rtol=0, atol=2e-7)


@pytest.mark.parametrize("dim", [1, 7, 128, 300])
def test_equal_rows_are_equal_items(dim: int) -> None:
    """Law 8: they tie to the last bit, wherever in the file and beside whatever they lie."""
    rng = np.random.default_rng(3)
    sizes = np.array([[1.0], [1e-3], [1e3], [1e15], [1e-15]])
    kinds = (rng.standard_normal((5, dim)) * sizes).astype(np.float32)
    which = rng.integers(0, 5, 3000)
    vectors = kinds[which]
    vectors[1000:1500] = kinds[0]
    artifact = _load(npy_bytes(vectors), check_layout=False, chunk_bytes=100_000)
    which[1000:1500] = 0
    for kind in range(5):
        items = _items(artifact)[which == kind]
        np.testing.assert_array_equal(items, np.broadcast_to(items[0], items.shape))


@pytest.mark.parametrize("dim", [2, 128, 129, 3000])
def test_norms_of_long_rows_are_as_good_as_of_short_ones(dim: int) -> None:
    """Sums of equal squares, the worst to round, and of squares of any size."""
    rng = np.random.default_rng(4)
    spread = rng.standard_normal((40, dim)) * np.exp(rng.standard_normal((40, dim)) * 3)
    for vectors in (np.full((40, dim), 0.1, np.float32), spread.astype(np.float32)):
        lengths = np.linalg.norm(
            _items(_load(npy_bytes(vectors), check_layout=False)).astype(np.float64), axis=1
        )
        assert np.abs(lengths - 1.0).max() < 3e-7


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_cancelled_load_stops_between_chunks(order: str) -> None:
    """The newest file wins: a load that is no longer wanted ends at the next chunk."""
    content = npy_bytes(in_order(unit_rows(1000, 16), order))
    read: list[int] = []
    with pytest.raises(LoadError) as refused:
        _load(content, chunk_bytes=2**12, progress=read.append, cancelled=lambda: len(read) == 3)
    assert (refused.value.code, refused.value.stage) == (LoadCode.CANCELLED, Stage.FETCH)
    assert len(read) == 3


def test_a_load_is_cancelled_while_it_normalises() -> None:
    """The second pass over a dim-major matrix ends early as well."""
    content = npy_bytes(np.asfortranarray(unit_rows(1000, 16)))
    done: list[int] = []
    with pytest.raises(LoadError) as refused:
        _load(content, progress=done.append, cancelled=lambda: done == [len(content)])
    assert refused.value.code is LoadCode.CANCELLED


def test_progress_counts_every_byte_once() -> None:
    """It rises to the size of the file, header included, and each byte is read once in order."""
    content = npy_bytes(unit_rows(1000, 16))
    reader = BytesReader(content)
    plan = plan_matrix(read_header(reader), layout="rows", dim=None)
    reader.reads.clear()
    seen: list[int] = []
    read_matrix(reader, plan, metric="cosine", progress=seen.append, chunk_bytes=2**12)
    assert seen == sorted(set(seen))
    assert seen[-1] == len(content)
    assert [0, *(stop for _, stop in reader.reads)][:-1] == [start for start, _ in reader.reads]


@pytest.mark.parametrize(("layout", "order"), FORMS)
def test_a_load_that_rests_reads_the_same(layout: Layout, order: str) -> None:
    """Both its threads rest, that which decodes and that which hashes; matrix and digest are the same."""
    content = npy_bytes(_arranged(unit_rows(40_000, 16), layout, order))
    rested = set[str]()
    pace = Pace(0.5, sleep=lambda _: rested.add(threading.current_thread().name))
    dim = 16 if layout == "transposed" else None
    slow, fast = _load(content, layout=layout, dim=dim, pace=pace), _load(content, layout=layout, dim=dim)
    assert np.array_equal(fast.matrix.data, slow.matrix.data)
    assert fast.digest == slow.digest
    assert {threading.current_thread().name, "kosine-sink_0"} == rested


@pytest.mark.parametrize(("dtype", "order"), list(product(["<f4", ">f8", "<f2"], "CF")))
def test_memory_beside_the_matrix_is_bounded(dtype: str, order: str) -> None:
    """Law 7: what a load allocates besides the matrix, which is no traced memory, is below the constant."""
    content = npy_bytes(in_order(unit_rows(60_000, 96).astype(dtype), order))
    tracemalloc.start()
    try:
        _load(content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < LOAD_BUFFER_BYTES


def test_memory_the_system_refuses_is_a_load_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """N16: an allocation that fails in spite of admission leaves a code and the number of bytes."""

    def refuse(*_: object) -> Any:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(ItemMatrix, "allocate", refuse)
    with pytest.raises(LoadError) as refused:
        _load(npy_bytes(unit_rows(10, 4)))
    assert refused.value.code is LoadCode.WONT_FIT
    assert refused.value.facts == {"matrix_bytes": 4 * 4 * 128}


def test_a_reader_that_finds_the_file_changed_is_heard() -> None:
    """Law 6: a file that became shorter after its header was read is not served."""
    content = npy_bytes(unit_rows(1000, 16))
    plan = plan_matrix(read_header(BytesReader(content)), layout="rows", dim=None)
    with pytest.raises(LoadError) as refused:
        read_matrix(BytesReader(content[:-8]), plan, metric="cosine")
    assert refused.value.code is LoadCode.CHANGED_WHILE_READING
