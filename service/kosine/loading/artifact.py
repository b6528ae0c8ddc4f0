"""From a checked header to the matrix an engine takes over: decoded, verified, normalised, in tiles.

The file is read once, in order, into a buffer of bounded size; beside the matrix itself a load takes at
most `LOAD_BUFFER_BYTES`, whatever the number of rows. Norms are right within 2e-7, and of an item of 1e20s
or of 1e-30s they are sums in float64. They double as the check for finite numbers: such a sum of squares of
finite float32 numbers is finite.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from kosine.engines.matrix import ItemMatrix
from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.body import CHUNK_BYTES, check_cancelled, read_pieces
from kosine.loading.invalid_rows import Dropped, compact
from kosine.loading.orientation import NormRange, Verdict, judge, refusal, unit_tolerance
from kosine.loading.pace import Pace
from kosine.serving.status import DroppedRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from kosine.engines.matrix import Order
    from kosine.loading.body import Piece
    from kosine.loading.layout import MatrixPlan
    from kosine.loading.source import Reader

__all__ = ("LOAD_BUFFER_BYTES", "MatrixArtifact", "not_finite_rows", "read_matrix", "zero_rows")

LOAD_BUFFER_BYTES = 6 * CHUNK_BYTES
"""Upper bound of what `read_matrix` allocates beside the matrix."""

_TILE_ELEMENTS = 2**18
_BLOCK_ELEMENTS = 2**17
_LINE_ELEMENTS = 2**20
_LINE_FLOATS = 16
"""Of one line of the cache."""
_COLUMN_LINES = 512
"""One line of each of so many rows is in the cache of a core together."""
_SUMMED = 128
"""Squares of one sum in float32: the longer it is, the more it rounds."""
_FAR = 2.0**30
"""Of norms between this and its inverse, no square and no factor comes near the limits of float32."""
_SAMPLE_VECTORS = 4096
_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MatrixArtifact:
    """A verified file in memory. Norms are those in the file; `digest` is the SHA-256 of all its bytes."""

    matrix: ItemMatrix
    dropped: Dropped | None
    """None where every row of the file is in the matrix."""
    norm_min: float
    norm_max: float
    digest: bytes
    dtype: str


def read_matrix(
    reader: Reader,
    plan: MatrixPlan,
    *,
    metric: str,
    order: Order = "dim_major",
    check_layout: bool = True,
    drop_invalid: bool = False,
    cancelled: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda _: None,
    chunk_bytes: int = CHUNK_BYTES,
    pace: Pace | None = None,
) -> MatrixArtifact:
    """Read the body of `reader` as `plan` says into a matrix of this `order`.

    For `cosine` every item is scaled to norm 1 within 1e-6.

    LoadError at CHECK: `not_finite` and `zero_rows` (for `cosine`; with `drop_invalid` only where no row is
    left), `layout_mismatch` and `layout_unproven` (unless `check_layout` is false); at FETCH: `cancelled`,
    `wont_fit`, and what the reader raises. Whether the file changed meanwhile is for the caller to ask with
    `reader.verify()`. `progress` gets the bytes read so far.
    """
    digest = sha256()
    matrix = _allocate(plan, order)
    breathe = Pace().breathe if pace is None else pace.breathe
    items = _Items(matrix=matrix, scale=metric == "cosine", drop=drop_invalid, breathe=breathe)
    pieces = read_pieces(
        reader,
        plan,
        sink=digest.update,
        cancelled=cancelled,
        progress=progress,
        chunk_bytes=chunk_bytes,
        pace=pace,
    )
    if plan.order == "row_major":
        other = _fill_row_major(items, pieces, unit_tolerance(plan.dtype))
    else:
        other = _fill_dim_major(items, pieces, plan, cancelled)
    _check(items, plan, metric=metric, other=other, check_layout=check_layout)
    dropped = items.dropped()
    return MatrixArtifact(
        matrix=matrix if dropped is None else compact(matrix, items.valid),
        dropped=dropped,
        norm_min=items.norms.low,
        norm_max=items.norms.high,
        digest=digest.digest(),
        dtype=plan.dtype.str,
    )


def not_finite_rows(count: int, first: list[int], *, rows: int) -> LoadError:
    """`not_finite` at CHECK, for `count` of `rows` items."""
    return LoadError(
        LoadCode.NOT_FINITE,
        f"expected numbers that are finite as float32 (up to 3.4e38), got NaN or infinity in {count} of "
        f"{rows} rows, {_listed(count, first)}; repair them, or set invalid_rows: drop",
        stage=Stage.CHECK,
        count=count,
        rows=first,
    )


def zero_rows(count: int, first: list[int], *, rows: int) -> LoadError:
    """`zero_rows` at CHECK, for `count` of `rows` items."""
    return LoadError(
        LoadCode.ZERO_ROWS,
        f"a row that is zero as float32 has no direction, so no cosine; got {count} of {rows} such rows, "
        f"{_listed(count, first)}; set invalid_rows: drop to leave them out, or metric: dot",
        stage=Stage.CHECK,
        count=count,
        rows=first,
    )


def _listed(count: int, first: list[int]) -> str:
    numbers = ", ".join(map(str, first))
    return f"the first at {numbers}" if count > len(first) else f"at {numbers}"


def _allocate(plan: MatrixPlan, order: Order) -> ItemMatrix:
    try:
        return ItemMatrix.allocate(plan.rows, plan.dim, order)
    except (OSError, MemoryError) as error:
        raise LoadError(
            LoadCode.WONT_FIT,
            f"the system refused {plan.nbytes} bytes for {plan.rows} rows of dim {plan.dim}; "
            "raise the memory limit",
            stage=Stage.FETCH,
            matrix_bytes=plan.nbytes,
        ) from error


@dataclass(slots=True)
class _Offenders:
    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, rows: NDArray[np.intp]) -> None:
        self.count += len(rows)
        self.first.extend(rows[: _SHOWN - len(self.first)].tolist())


@dataclass(slots=True, kw_only=True)
class _Items:
    """The columns of the matrix: each measured once and scaled to norm 1."""

    matrix: ItemMatrix
    scale: bool
    drop: bool
    breathe: Callable[[], None]
    """Called between pieces of work of a millisecond."""
    norms: NormRange = field(default_factory=NormRange)
    not_finite: _Offenders = field(default_factory=_Offenders)
    zero: _Offenders = field(default_factory=_Offenders)
    valid: NDArray[np.bool_] = field(init=False)
    """[rows]; filled where `drop` is set."""
    _scaled: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        self.valid = np.ones(self.matrix.rows if self.drop else 0, dtype=bool)
        # Of one tile, and used for all: new memory for each takes a quarter of the time.
        dim = self.matrix.dim
        # An odd number of lines from row to row: by a power of two, the lines of a column oust each other.
        apart = _LINE_FLOATS * (-(-dim // _LINE_FLOATS) | 1)
        self._scaled = np.empty((_tile_rows(dim), apart), np.float32)[:, :dim]

    def dropped(self) -> Dropped | None:
        """What is to be left out, once every item is finished."""
        if self.valid.all():
            return None
        zero = self.zero.count if self.scale else 0
        first = tuple(np.flatnonzero(~self.valid)[:_SHOWN].tolist())
        told = DroppedRows(not_finite=self.not_finite.count, zero=zero, first=first)
        return Dropped(kept=np.flatnonzero(self.valid), told=told)

    def place(self, start: int, vectors: NDArray[np.float32]) -> None:
        """Put whole items, [count, dim], in the columns from `start` on, tile after tile."""
        # NaN and zero norms are counted, not warned about; a signalling NaN warns in any cast.
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            norms = np.empty(len(vectors))
            for top in range(0, len(vectors), len(self._scaled)):
                tile = slice(top, top + len(self._scaled))
                self.breathe()
                self._transpose(start + top, self._measured(vectors[tile], norms[tile]))
            self._judge(start, norms)

    def _measured(self, vectors: NDArray[np.float32], norms: NDArray[np.float64]) -> NDArray[np.float32]:
        """A tile as it is to be in the matrix; fills `norms`.

        Each row by itself: equal rows are to stay equal, whatever lies beside them.
        """
        np.sqrt(_squares(vectors), out=norms)
        scaled = self._scaled[: len(vectors)]
        if self.scale:
            np.multiply(vectors, (1.0 / norms).astype(np.float32)[:, np.newaxis], out=scaled)
        far = np.flatnonzero(~((norms > 1.0 / _FAR) & (norms < _FAR)))
        if far.size:
            precise = vectors[far].astype(np.float64)
            norms[far] = _norms(precise, "ij,ij->i")
            if self.scale:
                scaled[far] = precise * (1.0 / norms[far])[:, np.newaxis]
        return scaled if self.scale else vectors

    def _transpose(self, start: int, vectors: NDArray[np.float32]) -> None:
        for top in range(0, len(vectors), _COLUMN_LINES):
            self._place_lines(start + top, vectors[top : top + _COLUMN_LINES])

    def _place_lines(self, start: int, vectors: NDArray[np.float32]) -> None:
        for first, columns in self.matrix.spans(start, start + len(vectors)):
            columns[...] = vectors[first - start : first - start + columns.shape[1]].T

    def finish(self, start: int, stop: int) -> None:
        """Take items `start` to `stop`, whose numbers are all there, in blocks that stay in the cache."""
        step = max(16, _BLOCK_ELEMENTS // self.matrix.dim)
        with np.errstate(invalid="ignore", divide="ignore"):
            for left in range(start, stop, step):
                for first, columns in self.matrix.spans(left, min(stop, left + step)):
                    self.breathe()
                    self._finish_block(first, columns)

    def _finish_block(self, left: int, columns: NDArray[np.float32]) -> None:
        precise = columns.astype(np.float64)
        norms = self._judge(left, _norms(precise, "ij,ij->j"))
        if self.scale:
            precise *= 1.0 / norms
            columns[...] = precise

    def _judge(self, start: int, norms: NDArray[np.float64]) -> NDArray[np.float64]:
        finite = np.isfinite(norms)
        if not finite.all():
            self.not_finite.add(start + np.flatnonzero(~finite))
        if not norms.all():
            self.zero.add(start + np.flatnonzero(norms == 0.0))
        good = finite & (norms != 0.0) if self.drop and self.scale else finite
        if self.drop:
            self.valid[start : start + len(good)] = good
        self.norms |= NormRange.of(norms[good])
        return norms


def _tile_rows(dim: int) -> int:
    return max(16, _TILE_ELEMENTS // dim)


def _squares(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sums of squares of rows, right within 3e-7: of `_SUMMED` in float32, and of those in float64."""
    squares = np.zeros(len(vectors))
    for left in range(0, vectors.shape[1], _SUMMED):
        part = vectors[:, left : left + _SUMMED]
        squares += np.einsum("ij,ij->i", part, part)
    return squares


def _norms(vectors: NDArray[np.floating], subscripts: str) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        squares: NDArray[np.float64] = np.einsum(subscripts, vectors, vectors, dtype=np.float64)
    return np.sqrt(squares)


def _fill_row_major(items: _Items, pieces: Iterator[Piece], tolerance: float) -> NormRange | None:
    """Items arrive whole, so each tile is finished while it is in the cache, before it is transposed.

    The other reading, columns over all items, is summed up only while every sum may still be that of a unit
    vector: raw embeddings leave it within the first piece.
    """
    axes = np.zeros(items.matrix.dim)
    summing = True
    for piece in pieces:
        items.place(piece.top, piece.values)
        summing = summing and not items.norms.is_unit(tolerance)
        if summing:
            axes += _norms(piece.values, "ij,ij->j") ** 2
            summing = bool(axes.max() <= (1.0 + tolerance) ** 2)
    return NormRange.of(np.sqrt(axes)) if summing else None


def _fill_dim_major(
    items: _Items, pieces: Iterator[Piece], plan: MatrixPlan, cancelled: Callable[[], bool]
) -> NormRange | None:
    """No item is whole before the last piece, so the matrix is passed over again.

    The other reading lies in the file's order, so it is measured before that pass, from raw numbers.
    """
    for piece in pieces:
        height, width = piece.values.shape
        for first, columns in items.matrix.spans(piece.left, piece.left + width):
            left = first - piece.left
            items.breathe()
            lines = columns[piece.top : piece.top + height]
            lines[...] = piece.values[:, left : left + columns.shape[1]]
    other = (
        _measure_flat(items.matrix) if plan.flat else _measure_lines(items.matrix, unit_tolerance(plan.dtype))
    )
    step = max(16, _LINE_ELEMENTS // plan.dim)
    for start in range(0, plan.rows, step):
        check_cancelled(cancelled)
        items.finish(start, min(plan.rows, start + step))
    return other


def _measure_flat(matrix: ItemMatrix) -> NormRange:
    """Norms of the first vectors of a flat file, read item after item."""
    rows, dim = matrix.rows, matrix.dim
    count = min(rows, _SAMPLE_VECTORS, max(2, _LINE_ELEMENTS // dim))
    prefix = np.empty(count * dim, np.float32)
    for offset in range(0, len(prefix), rows):
        for first, columns in matrix.spans(0, min(rows, len(prefix) - offset)):
            at = offset + first
            prefix[at : at + columns.shape[1]] = columns[offset // rows]
    return NormRange.of(_norms(prefix.reshape(count, dim), "ij,ij->i"))


def _measure_lines(matrix: ItemMatrix, tolerance: float) -> NormRange:
    """Norms of the lines of a 2-D file, up to the first that is not a unit vector."""
    found = NormRange()
    for line in range(min(matrix.dim, _SAMPLE_VECTORS)):
        parts = (columns[line : line + 1] for _, columns in matrix.spans(0, matrix.rows))
        square = sum(float(_norms(part, "ij,ij->i")[0]) ** 2 for part in parts)
        found |= NormRange(square**0.5, square**0.5)
        if not found.is_unit(tolerance):
            break
    return found


def _check(
    items: _Items, plan: MatrixPlan, *, metric: str, other: NormRange | None, check_layout: bool
) -> None:
    """Raise what is wrong with the content; a wrong layout before the zero rows it may cause."""
    tolerated = items.drop and bool(items.valid.any())
    if items.not_finite.count and not tolerated:
        raise not_finite_rows(items.not_finite.count, items.not_finite.first, rows=plan.rows)
    verdict = judge(plan, metric=metric, declared=items.norms, other=other) if check_layout else Verdict.RAW
    if verdict is Verdict.MISMATCH:
        raise refusal(plan, declared=items.norms, other=other)
    if items.zero.count and metric == "cosine" and not tolerated:
        raise zero_rows(items.zero.count, items.zero.first, rows=plan.rows)
    if verdict is Verdict.UNPROVEN:
        raise refusal(plan, declared=items.norms, other=other)
