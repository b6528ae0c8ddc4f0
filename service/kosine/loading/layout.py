"""How the numbers of a file become items: pure rules over its header.

`rows` is (N, d), `columns` is (d, N), `transposed` is a flat array with all first components first. Together
with the order of the file this leaves two physical forms: row-major, item after item, and dim-major.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kosine.engines.matrix import tiling
from kosine.errors import LoadCode, LoadError, Stage
from kosine.npy.header import shown

if TYPE_CHECKING:
    import numpy as np

    from kosine.engines.matrix import Order
    from kosine.npy.header import NpyHeader
    from kosine.settings import Layout

__all__ = ("MAX_DIM", "MAX_ROWS", "MatrixPlan", "plan_matrix")

MAX_ROWS = 2_000_000_000
"""Row numbers are int32."""
MAX_DIM = 65_536

_COMMON_DIMS = (25, 32, 50, 64, 96, 100, 128, 200, 256, 300, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixPlan:
    """Where each item of a file lies, and what the matrix in memory will take."""

    layout: Layout
    rows: int
    dim: int
    order: Order
    """Of the file, not of the matrix."""
    dtype: np.dtype[Any]
    data_offset: int

    @property
    def flat(self) -> bool:
        """Whether the shape of the file proves nothing about its orientation."""
        return self.layout == "transposed"

    @property
    def physical_shape(self) -> tuple[int, int]:
        """The file's body as a C-order matrix."""
        return (self.rows, self.dim) if self.order == "row_major" else (self.dim, self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes of the `ItemMatrix`, padding included."""
        tiles, columns = tiling(self.rows)
        return 4 * self.dim * tiles * columns


def plan_matrix(header: NpyHeader, *, layout: Layout, dim: int | None) -> MatrixPlan:
    """Where the items lie if the file has this `layout`, and `dim` where it is given.

    LoadError at GATE: `bad_shape`, `empty_matrix`, `dim_required`, or `dim_not_declared` where the file has
    another dimension than `dim`.
    """
    if layout == "transposed":
        rows, found = _flat_shape(header.shape, dim)
        order: Order = "dim_major"
    else:
        rows, found = _matrix_shape(header.shape, layout)
        order = "row_major" if (layout == "rows") is not header.fortran_order else "dim_major"
    _check_extents(rows, found, header.shape, layout)
    if dim is not None and dim != found:
        raise _wrong_dim(dim, found, rows, layout)
    return MatrixPlan(
        layout=layout, rows=rows, dim=found, order=order, dtype=header.dtype, data_offset=header.data_offset
    )


def _matrix_shape(shape: tuple[int, ...], layout: str) -> tuple[int, int]:
    wanted = "(N, d)" if layout == "rows" else "(d, N)"
    if len(shape) == 1:
        raise _bad_shape(
            f"expected a 2-D array {wanted} for layout {layout}, got 1-D {shown(shape)}; write "
            "x.reshape(-1, dim), or for a file of np.transpose(unit_rows).flatten() set layout: transposed "
            "and dim"
        )
    if len(shape) != 2:  # noqa: PLR2004 - 2-D is 2
        raise _bad_shape(f"expected a 2-D array {wanted}, got {len(shape)}-D {shown(shape)}; reshape it")
    return (shape[0], shape[1]) if layout == "rows" else (shape[1], shape[0])


def _flat_shape(shape: tuple[int, ...], dim: int | None) -> tuple[int, int]:
    if len(shape) != 1:
        better = "set layout: rows for (N, d) or columns for (d, N)" if len(shape) > 1 else "save an array"
        raise _bad_shape(
            f"expected a flat 1-D array for layout transposed, got {len(shape)}-D {shown(shape)}; {better}"
        )
    count = shape[0]
    if dim is None:
        fits = [str(common) for common in _COMMON_DIMS if count and count % common == 0]
        hint = f"; of the usual ones {', '.join(fits)} divide {count}" if fits else ""
        raise LoadError(
            LoadCode.DIM_REQUIRED,
            f"a flat array of {count} numbers does not say how long one item is; set dim{hint}",
            stage=Stage.GATE,
            elements=count,
        )
    if count % dim:
        raise _bad_shape(f"expected a multiple of dim {dim}, got {count} numbers; correct dim or the file")
    return count // dim, dim


def _check_extents(rows: int, dim: int, shape: tuple[int, ...], layout: str) -> None:
    if not rows or not dim:
        raise LoadError(
            LoadCode.EMPTY_MATRIX,
            f"expected at least one row and one dimension, got shape {shown(shape)}; a job that found "
            "nothing to write should keep the old file",
            stage=Stage.GATE,
            rows=rows,
            dim=dim,
        )
    if dim > MAX_DIM:
        other = "columns" if layout == "rows" else "rows"
        hint = f"; with layout: {other} it has {rows}" if layout != "transposed" and rows <= MAX_DIM else ""
        raise _bad_shape(f"expected at most {MAX_DIM} dimensions, got {dim}{hint}", dim=dim)
    if rows > MAX_ROWS:
        raise _bad_shape(f"expected at most {MAX_ROWS} rows, got {rows}; split the index", rows=rows)


def _wrong_dim(declared: int, found: int, rows: int, layout: str) -> LoadError:
    other = "columns" if layout == "rows" else "rows"
    swapped = declared == rows and layout != "transposed"
    remedy = f"set layout: {other}, which has that dimension" if swapped else "correct dim, or the file"
    return LoadError(
        LoadCode.DIM_NOT_DECLARED,
        f"expected the declared dim {declared}, got {found} in layout {layout}; {remedy}",
        stage=Stage.GATE,
        expected=declared,
        got=found,
    )


def _bad_shape(detail: str, **facts: Any) -> LoadError:
    return LoadError(LoadCode.BAD_SHAPE, detail, stage=Stage.GATE, **facts)
