"""Every way to find items in a file, measured: the evidence that `kosine inspect` shows.

A 2-D file has two readings, along its rows and along its columns; a flat one has two once a dimension is
given. Measuring reads the file once, in chunks, and keeps 8 bytes a vector.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from msgspec import Struct

from kosine.errors import LoadError
from kosine.loading.body import read_pieces
from kosine.loading.layout import plan_matrix
from kosine.loading.orientation import NormRange, unit_tolerance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from kosine.loading.body import Piece
    from kosine.loading.layout import MatrixPlan
    from kosine.loading.source import Reader
    from kosine.npy.header import NpyHeader
    from kosine.settings import Layout

__all__ = ("Faults", "Measured", "Norms", "Reading", "measure_flat", "measure_matrix")

_SHOWN = 10


class Norms(Struct, frozen=True, kw_only=True):
    """Of the finite vectors of one reading."""

    low: float
    median: float
    high: float


class Faults(Struct, frozen=True, kw_only=True):
    """How many vectors have a fault, and the numbers of the first ten."""

    count: int
    first: list[int]


class Reading(Struct, frozen=True, kw_only=True):
    """One way to find items in a file; `flat rows` is a flat file read item after item."""

    layout: Literal["rows", "columns", "transposed", "flat rows"]
    rows: int
    dim: int
    norms: Norms | None
    """None where no item is finite."""
    unit: bool
    """Whether every item is a unit vector."""
    not_finite: Faults
    zero: Faults


@dataclass(frozen=True, slots=True)
class Measured:
    """A reading, the plan that makes it, and the range of its norms."""

    plan: MatrixPlan
    reading: Reading
    norms: NormRange
    """Of the finite vectors."""
    nonzero: NormRange
    """Of those that are not zero, either."""


def measure_matrix(
    reader: Reader,
    header: NpyHeader,
    *,
    sink: Callable[[memoryview], object],
    progress: Callable[[int], None],
) -> list[Measured]:
    """Both readings of a 2-D file, rows first; one that no layout allows is left out.

    `sink` gets every byte of the file, `progress` the bytes read so far.
    """
    plans = [plan for layout in ("rows", "columns") if (plan := _plan(header, layout)) is not None]
    if not plans:
        return []
    lines, columns = np.zeros(plans[0].physical_shape[0]), np.zeros(plans[0].physical_shape[1])
    for piece, squares in _squares(reader, plans[0], sink, progress):
        rows, count = squares.shape
        lines[piece.top : piece.top + rows] += squares.sum(axis=1)
        columns[piece.left : piece.left + count] += squares.sum(axis=0)
    return [_measured(plan, plan.layout, lines if plan.order == "row_major" else columns) for plan in plans]


def measure_flat(
    reader: Reader, plan: MatrixPlan, *, sink: Callable[[memoryview], object], progress: Callable[[int], None]
) -> list[Measured]:
    """Both readings of a flat file, the dim-major one first; see `measure_matrix`."""
    items, others = np.zeros(plan.rows), np.zeros(plan.rows)
    for piece, squares in _squares(reader, plan, sink, progress):
        items[piece.left : piece.left + squares.shape[1]] += squares.sum(axis=0)
        _add_runs(others, squares.ravel(), offset=piece.top * plan.rows + piece.left, dim=plan.dim)
    flipped = replace(plan, order="row_major")
    return [_measured(plan, "transposed", items), _measured(flipped, "flat rows", others)]


def _plan(header: NpyHeader, layout: Layout) -> MatrixPlan | None:
    try:
        return plan_matrix(header, layout=layout, dim=None)
    except LoadError:
        return None


def _squares(
    reader: Reader,
    plan: MatrixPlan,
    sink: Callable[[memoryview], object],
    progress: Callable[[int], None],
) -> Iterator[tuple[Piece, NDArray[np.float64]]]:
    """Every piece of the body, and its values squared."""
    for piece in read_pieces(reader, plan, sink=sink, cancelled=lambda: False, progress=progress):
        with np.errstate(invalid="ignore"):
            yield piece, np.square(piece.values, dtype=np.float64)


def _add_runs(totals: NDArray[np.float64], values: NDArray[np.float64], *, offset: int, dim: int) -> None:
    """Add values [offset, ...) of a flat array to the totals of its runs of `dim`, the first one maybe begun.

    >>> totals = np.zeros(3)
    >>> _add_runs(totals, np.array([1.0, 10.0, 10.0, 100.0]), offset=1, dim=2)
    >>> totals.tolist()
    [1.0, 20.0, 100.0]
    """
    first = offset // dim
    starts = np.arange(first * dim, offset + len(values), dim) - offset
    starts[0] = 0
    totals[first : first + len(starts)] += np.add.reduceat(values, starts)


def _measured(
    plan: MatrixPlan,
    layout: Literal["rows", "columns", "transposed", "flat rows"],
    sums: NDArray[np.float64],
) -> Measured:
    """The reading whose vectors have these sums of squares."""
    norms = np.sqrt(sums)
    finite = np.isfinite(norms)
    good = norms[finite]
    span = NormRange.of(good)
    reading = Reading(
        layout=layout,
        rows=plan.rows,
        dim=plan.dim,
        norms=Norms(low=span.low, median=float(np.median(good)), high=span.high) if good.size else None,
        unit=bool(finite.all()) and span.is_unit(unit_tolerance(plan.dtype)),
        not_finite=_faults(~finite),
        zero=_faults(norms == 0.0),
    )
    return Measured(plan, reading, span, NormRange.of(good[good != 0.0]))


def _faults(wrong: NDArray[np.bool_]) -> Faults:
    where = np.flatnonzero(wrong)
    return Faults(count=len(where), first=where[:_SHOWN].tolist())
