"""Rows that cannot be searched, left out on demand: the others are served as if they had been the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosine.engines.matrix import ItemMatrix
from kosine.errors import LoadCode, LoadError
from kosine.loading.artifact import read_matrix
from kosine.loading.invalid_rows import compact
from kosine.loading.layout import plan_matrix
from kosine.npy.header import read_header
from kosine.serving.status import DroppedRows
from tests.kit.npy_files import BytesReader, in_order, npy_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kosine.engines.matrix import Order
    from kosine.loading.artifact import MatrixArtifact


def load(vectors: NDArray[Any], *, metric: str = "cosine", chunk_bytes: int = 2**12) -> MatrixArtifact:
    reader = BytesReader(npy_bytes(vectors))
    plan = plan_matrix(read_header(reader), layout="rows", dim=None)
    return read_matrix(reader, plan, metric=metric, drop_invalid=True, chunk_bytes=chunk_bytes)


def items(artifact: MatrixArtifact) -> NDArray[np.float32]:
    return artifact.matrix.take(np.arange(artifact.matrix.rows))


@given(data=st.data(), order=st.sampled_from("CF"), metric=st.sampled_from(["cosine", "dot"]))
def test_what_is_left_equals_a_file_without_the_invalid_rows(
    data: st.DataObject, order: str, metric: str
) -> None:
    """N6: any rows of any kind, in any order of the file, at any seam; kept numbers are the file's."""
    kinds = data.draw(
        st.lists(st.sampled_from(["good", "good", "nan", "inf", "zero"]), min_size=1, max_size=400)
    )
    dim = data.draw(st.integers(1, 9))
    vectors = np.random.default_rng(len(kinds)).standard_normal((len(kinds), dim)).astype(np.float32)
    values = {"nan": np.nan, "inf": np.inf, "zero": 0.0}
    for row, kind in enumerate(kinds):
        if kind != "good":
            vectors[row] = values[kind]
    invalid = {"nan", "inf", "zero"} if metric == "cosine" else {"nan", "inf"}
    kept = [row for row, kind in enumerate(kinds) if kind not in invalid]
    stored = in_order(vectors, order)
    if not kept:
        with pytest.raises(LoadError) as refused:
            load(stored, metric=metric)
        assert refused.value.code in {LoadCode.NOT_FINITE, LoadCode.ZERO_ROWS}
        return
    artifact, alone = (
        load(stored, metric=metric, chunk_bytes=256),
        load(in_order(vectors[kept], order), metric=metric),
    )
    np.testing.assert_allclose(items(alone), items(artifact), rtol=3e-7)
    (tile,) = artifact.matrix.data
    assert not tile[:, len(kept) :].any()
    norms = (alone.norm_min, alone.norm_max)
    np.testing.assert_allclose(norms, (artifact.norm_min, artifact.norm_max), rtol=2e-7)
    assert kept == (list(range(len(kinds))) if artifact.dropped is None else artifact.dropped.kept.tolist())


def test_what_was_left_out_is_told() -> None:
    """Counts by kind, and the numbers of the first ten."""
    vectors = np.ones((40, 3), dtype=np.float32)
    vectors[3:15] = np.nan
    vectors[20] = 0.0
    dropped = load(vectors).dropped
    assert dropped is not None
    assert DroppedRows(not_finite=12, zero=1, first=tuple(range(3, 13))) == dropped.told


def test_ids_stay_with_their_rows() -> None:
    """Those of the ids file; without one the row numbers of the file, so that they mean what they meant."""
    vectors = np.ones((4, 3), dtype=np.float32)
    vectors[1] = np.inf
    dropped = load(vectors).dropped
    assert dropped is not None
    assert ["a", "c", "d"] == dropped.ids_of(np.array(["a", "b", "c", "d"])).tolist()
    assert [0, 2, 3] == dropped.ids_of(None).tolist()


def test_a_file_without_invalid_rows_is_not_touched() -> None:
    """The setting costs nothing where there is nothing to drop."""
    artifact = load(np.eye(5, dtype=np.float32))
    assert artifact.dropped is None
    assert 5 == artifact.matrix.rows


@given(
    columns=st.integers(1, 3).map(lambda blocks: 128 * blocks),
    keep=st.lists(st.booleans(), min_size=1, max_size=1500).filter(any),
    order=st.sampled_from(["dim_major", "row_major"]),
)
def test_rows_move_over_the_edges_of_tiles(columns: int, keep: list[bool], order: Order) -> None:
    """Whatever the tiles: kept rows in their order, no tile without a row, zeros behind the last."""
    rows = len(keep)
    shape = (2, columns) if order == "dim_major" else (columns, 2)
    data = np.zeros((-(-rows // columns), *shape), dtype=np.float32)
    matrix = ItemMatrix(data=data, rows=rows, order=order)
    for first, part in matrix.spans(0, rows):
        part[0] = np.arange(first + 1, first + 1 + part.shape[1])
    left = compact(matrix, np.array(keep))
    kept = np.flatnonzero(keep)
    np.testing.assert_array_equal(kept + 1, left.take(np.arange(left.rows))[:, 0])
    assert (len(kept), -(-len(kept) // columns)) == (left.rows, len(left.data))
    assert len(kept) == np.count_nonzero(left.data)
