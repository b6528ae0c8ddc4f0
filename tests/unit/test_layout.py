"""Where items lie in a file, and when norms contradict it: the rules as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosine.engines.matrix import ItemMatrix
from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.body import rectangles
from kosine.loading.layout import MAX_DIM, MAX_ROWS, MatrixPlan, plan_matrix
from kosine.loading.orientation import NormRange, Verdict, judge, refusal, unit_tolerance
from kosine.npy.header import NpyHeader

if TYPE_CHECKING:
    from kosine.settings import Layout


def _header(shape: tuple[int, ...], *, fortran_order: bool = False, dtype: str = "<f4") -> NpyHeader:
    return NpyHeader((1, 0), np.dtype(dtype), fortran_order, shape, 128)


def _plan(layout: Layout = "rows", *, rows: int = 100, dim: int = 8, dtype: str = "<f4") -> MatrixPlan:
    shape = {"rows": (rows, dim), "columns": (dim, rows), "transposed": (rows * dim,)}[layout]
    return plan_matrix(_header(shape, dtype=dtype), layout=layout, dim=dim)


@pytest.mark.parametrize(
    ("layout", "shape", "fortran_order", "order", "physical"),
    [
        ("rows", (6, 4), False, "row_major", (6, 4)),
        ("rows", (6, 4), True, "dim_major", (4, 6)),
        ("columns", (4, 6), False, "dim_major", (4, 6)),
        ("columns", (4, 6), True, "row_major", (6, 4)),
        ("transposed", (24,), False, "dim_major", (4, 6)),
        ("transposed", (24,), True, "dim_major", (4, 6)),
    ],
)
def test_layout_and_order_make_the_physical_form(
    layout: Layout, shape: tuple[int, ...], *, fortran_order: bool, order: str, physical: tuple[int, int]
) -> None:
    """N7: six items of dim 4, however they lie; the body as it lies is `physical_shape`."""
    plan = plan_matrix(_header(shape, fortran_order=fortran_order), layout=layout, dim=4)
    assert (plan.rows, plan.dim) == (6, 4)
    assert (plan.order, plan.physical_shape) == (order, physical)
    assert (plan.data_offset, plan.dtype) == (128, np.dtype("<f4"))


@pytest.mark.parametrize("rows", [1, 127, 128, 129, 1000])
def test_the_plan_knows_the_bytes_of_the_matrix(rows: int) -> None:
    """Law 7: admission reckons with what is allocated, padding included."""
    assert _plan(rows=rows).nbytes == ItemMatrix.allocate(rows, 8).nbytes


def test_dim_is_optional_where_the_shape_has_it() -> None:
    """A 2-D file says its dimension; a declared one is checked against it."""
    assert plan_matrix(_header((6, 4)), layout="rows", dim=None).dim == 4
    assert plan_matrix(_header((4, 6)), layout="columns", dim=4).dim == 4


@pytest.mark.parametrize(
    ("shape", "layout", "dim", "code", "advice"),
    [
        ((24,), "rows", None, LoadCode.BAD_SHAPE, "layout: transposed"),
        ((2, 3, 4), "rows", None, LoadCode.BAD_SHAPE, r"3-D \(2, 3, 4\)"),
        ((), "columns", None, LoadCode.BAD_SHAPE, "0-D"),
        ((1,) * 3000, "rows", None, LoadCode.BAD_SHAPE, r"3000-D \(1, 1, 1, 1, \.\.\.\)"),
        ((4, 6), "transposed", 4, LoadCode.BAD_SHAPE, "layout: rows for"),
        ((24,), "transposed", None, LoadCode.DIM_REQUIRED, "set dim"),
        (
            (6400,),
            "transposed",
            None,
            LoadCode.DIM_REQUIRED,
            "25, 32, 50, 64, 100, 128, 200, 256 divide 6400",
        ),
        ((25,), "transposed", 4, LoadCode.BAD_SHAPE, "multiple of dim 4, got 25"),
        ((0, 4), "rows", None, LoadCode.EMPTY_MATRIX, "at least one row"),
        ((0,), "transposed", 4, LoadCode.EMPTY_MATRIX, "at least one row"),
        ((6, 4), "rows", 5, LoadCode.DIM_NOT_DECLARED, "declared dim 5, got 4"),
        ((6, 4), "rows", 6, LoadCode.DIM_NOT_DECLARED, "set layout: columns"),
        ((6, 4), "columns", 4, LoadCode.DIM_NOT_DECLARED, "set layout: rows"),
        ((100, MAX_DIM + 1), "rows", None, LoadCode.BAD_SHAPE, "with layout: columns it has 100"),
        ((MAX_DIM + 1, MAX_DIM + 1), "rows", None, LoadCode.BAD_SHAPE, "at most 65536 dimensions"),
        ((MAX_ROWS + 1, 4), "rows", None, LoadCode.BAD_SHAPE, "at most 2000000000 rows"),
    ],
)
def test_a_shape_that_fits_no_layout_is_refused_with_advice(
    shape: tuple[int, ...], layout: Layout, dim: int | None, code: LoadCode, advice: str
) -> None:
    """N4: the refusal has its code and says what to change."""
    with pytest.raises(LoadError, match=advice) as refused:
        plan_matrix(_header(shape), layout=layout, dim=dim)
    assert (refused.value.code, refused.value.stage) == (code, Stage.GATE)


def test_the_largest_extents_are_allowed() -> None:
    """A limit is refused one past itself, not at itself."""
    assert plan_matrix(_header((1, MAX_DIM)), layout="rows", dim=None).dim == MAX_DIM
    assert plan_matrix(_header((MAX_ROWS, 1)), layout="rows", dim=None).rows == MAX_ROWS


UNIT, RAW, ZERO = NormRange(0.9999, 1.0001), NormRange(0.5, 2.0), NormRange(0.0, 1.0)


@pytest.mark.parametrize(
    ("layout", "metric", "declared", "other", "verdict"),
    [
        ("rows", "cosine", UNIT, RAW, Verdict.UNIT),
        ("rows", "cosine", UNIT, UNIT, Verdict.UNIT),
        ("rows", "cosine", UNIT, None, Verdict.UNIT),
        ("rows", "cosine", RAW, UNIT, Verdict.MISMATCH),
        ("rows", "cosine", ZERO, UNIT, Verdict.MISMATCH),
        ("rows", "cosine", RAW, RAW, Verdict.RAW),
        ("rows", "cosine", RAW, None, Verdict.RAW),
        ("columns", "cosine", RAW, UNIT, Verdict.MISMATCH),
        ("rows", "dot", UNIT, RAW, Verdict.UNIT),
        ("rows", "dot", RAW, UNIT, Verdict.RAW),
        ("rows", "dot", RAW, RAW, Verdict.RAW),
        ("transposed", "cosine", UNIT, RAW, Verdict.UNIT),
        ("transposed", "cosine", RAW, UNIT, Verdict.MISMATCH),
        ("transposed", "cosine", RAW, RAW, Verdict.UNPROVEN),
        ("transposed", "cosine", ZERO, RAW, Verdict.UNPROVEN),
        ("transposed", "dot", UNIT, RAW, Verdict.UNIT),
        ("transposed", "dot", RAW, UNIT, Verdict.MISMATCH),
        ("transposed", "dot", RAW, RAW, Verdict.RAW),
    ],
)
def test_norms_decide_as_the_table_says(
    layout: Layout, metric: str, declared: NormRange, other: NormRange | None, verdict: Verdict
) -> None:
    """Raw embeddings pass in a 2-D file, a flat one needs proof; evidence of the other refuses both."""
    assert judge(_plan(layout), metric=metric, declared=declared, other=other) is verdict


@pytest.mark.parametrize("layout", ["rows", "columns", "transposed"])
@pytest.mark.parametrize(("rows", "dim"), [(1, 8), (100, 1), (1, 1)])
def test_one_row_or_one_dimension_proves_nothing(layout: Layout, rows: int, dim: int) -> None:
    """A single vector of signs has unit columns and is no mistake."""
    plan = _plan(layout, rows=rows, dim=dim)
    assert judge(plan, metric="cosine", declared=RAW, other=UNIT) is Verdict.RAW


@pytest.mark.parametrize(
    ("dtype", "norm", "unit"),
    [
        ("<f4", 1.0009, True),
        ("<f4", 1.0011, False),
        ("<f8", 0.9989, False),
        ("<f2", 0.991, True),
        ("<f2", 0.989, False),
    ],
)
def test_a_norm_is_one_within_the_rounding_of_its_dtype(dtype: str, norm: float, *, unit: bool) -> None:
    """float16 rounds coarser, so its unit vectors may stray further."""
    assert NormRange(norm, norm).is_unit(unit_tolerance(np.dtype(dtype))) is unit


def test_no_norms_are_not_unit() -> None:
    """Where every vector is spoilt nothing is proven."""
    assert not NormRange.of(np.empty(0)).is_unit(1e-3)
    assert NormRange.of(np.empty(0)) | RAW == RAW


@pytest.mark.parametrize(
    ("layout", "other", "code", "words"),
    [
        ("rows", UNIT, LoadCode.LAYOUT_MISMATCH, "set layout: columns"),
        ("columns", UNIT, LoadCode.LAYOUT_MISMATCH, "set layout: rows"),
        ("transposed", UNIT, LoadCode.LAYOUT_MISMATCH, "np.transpose(rows).flatten()"),
        ("transposed", RAW, LoadCode.LAYOUT_UNPROVEN, "check dim (8)"),
    ],
)
def test_a_wrong_layout_is_refused_with_both_norms_and_the_remedy(
    layout: Layout, other: NormRange, code: LoadCode, words: str
) -> None:
    """N4, N7: the message names the norms found, what to write, and the switch that overrides."""
    error = refusal(_plan(layout), declared=RAW, other=other)
    assert (error.code, error.stage) == (code, Stage.CHECK)
    for expected in ("0.5 to 2", words, "check_layout: false"):
        assert expected in error.detail
    assert error.facts["norms"] == [0.5, 2.0]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 100))
def test_rectangles_cover_a_matrix_in_file_order(height: int, width: int, limit: int) -> None:
    """Every element once, in C order, contiguous, and never more than the limit at a time."""
    numbers = np.arange(height * width).reshape(height, width)
    seen: list[Any] = []
    for top, left, rows, columns in rectangles(height, width, limit=limit):
        assert rows * columns <= limit
        seen += numbers[top : top + rows, left : left + columns].ravel().tolist()
    assert seen == list(range(height * width))
