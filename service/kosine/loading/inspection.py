"""What `kosine inspect` finds in a file: everything that a load checks, and what to configure.

A load stops at the first fault; an inspection goes on and lists them all. It never holds the matrix.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct, field

from kosine.engines.matrix import padded_rows
from kosine.errors import LoadError
from kosine.loading.artifact import LOAD_BUFFER_BYTES, not_finite_rows, zero_rows
from kosine.loading.ids import read_ids
from kosine.loading.layout import plan_matrix
from kosine.loading.local import LocalStorage
from kosine.loading.npy import read_header
from kosine.loading.orientation import Verdict, judge, refusal
from kosine.loading.readings import Measured, Reading, measure_flat, measure_matrix
from kosine.source_uri import COMMAND_LINE, BadUri, parse_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kosine.loading.layout import MatrixPlan
    from kosine.loading.npy import NpyHeader
    from kosine.loading.source import Reader
    from kosine.settings import Layout, Metric

__all__ = ("Inspection", "MemoryEstimate", "Refusal", "inspect_file")

_BATCH_ROWS = 128


class MemoryEstimate(Struct, frozen=True, kw_only=True):
    """Bytes that serving the file takes, with batches of 128 rows."""

    matrix: int
    scratch: int
    load_peak: int
    reload_peak: int
    """Load peak while the old version, of the same size, still serves."""


class Refusal(Struct, frozen=True, kw_only=True):
    """Why the service would refuse the file."""

    code: str
    stage: str
    detail: str


class Inspection(Struct, kw_only=True):
    """What was found out; all there is, unless the file is refused."""

    file: str
    size: int | None = None
    npy_version: str | None = None
    shape: list[int] | None = None
    dtype: str | None = None
    order: Literal["C", "Fortran"] | None = None
    layout: str | None = None
    reason: str | None = None
    """Why this layout."""
    rows: int | None = None
    dim: int | None = None
    readings: list[Reading] = field(default_factory=list)
    memory: MemoryEstimate | None = None
    ids: str | None = None
    """Their dtype, once they are checked."""
    refusals: list[Refusal] = field(default_factory=list)
    suggestion: str | None = None
    """What to write into the configuration file."""

    @property
    def good(self) -> bool:
        """Whether the service would load it."""
        return not self.refusals

    def refuse(self, error: LoadError) -> None:
        """One more fault."""
        self.refusals.append(Refusal(code=error.code.value, stage=error.stage.value, detail=error.detail))


def inspect_file(
    path: str,
    *,
    layout: Layout | None = None,
    dim: int | None = None,
    ids: str | None = None,
    metric: Metric = "cosine",
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Inspection:
    """Look at all of a file. A `layout` of None is guessed; `progress` gets bytes read and bytes to read.

    Never raises LoadError: what is wrong is in `Inspection.refusals`.
    """
    found = Inspection(file=_printable(path))
    storage = LocalStorage(COMMAND_LINE)
    try:
        fingerprint = storage.fingerprint(path)
        found.size = fingerprint.size
        with storage.open(path, fingerprint) as reader:
            _inspect_matrix(reader, found, layout=layout, dim=dim, metric=metric, progress=progress)
            reader.verify()
        if ids is not None and found.rows is not None:
            with storage.open(ids, storage.fingerprint(ids)) as reader:
                found.ids = read_ids(reader, rows=found.rows).values.dtype.str
                reader.verify()
    except LoadError as error:
        found.refuse(error)
    if found.good:
        found.suggestion = _suggestion(found, ids=ids, metric=metric)
    return found


def _inspect_matrix(
    reader: Reader,
    found: Inspection,
    *,
    layout: Layout | None,
    dim: int | None,
    metric: Metric,
    progress: Callable[[int, int], None],
) -> None:
    header = read_header(reader)
    found.npy_version = f"{header.version[0]}.{header.version[1]}"
    found.shape = list(header.shape)
    found.dtype = header.dtype.str
    found.order = "Fortran" if header.fortran_order else "C"
    flat = layout == "transposed" or (layout is None and len(header.shape) == 1)
    if flat:
        plan = plan_matrix(header, layout="transposed", dim=dim)
        measured = measure_flat(reader, plan, lambda done: progress(done, 2 * reader.size))
        chosen, reason = measured[0], "a flat array, read dim-major"
    else:
        # Refused before the body is read, as a load would.
        allowed = _allowed(header, layout, dim)
        measured = measure_matrix(reader, header, lambda done: progress(done, reader.size))
        chosen, reason = _choose([one for one in measured if one.plan.layout in allowed])
    found.layout, found.rows, found.dim = chosen.plan.layout, chosen.plan.rows, chosen.plan.dim
    found.reason = "as given" if layout is not None else reason
    found.readings = [one.reading for one in measured]
    found.memory = _estimate(chosen.plan)
    _judge(found, chosen, measured, metric)


def _allowed(header: NpyHeader, layout: Layout | None, dim: int | None) -> list[str]:
    """Layouts that header and options allow, one or more; LoadError of the first where none is."""
    refused: list[LoadError] = []
    allowed: list[str] = []
    candidates: tuple[Layout, ...] = ("rows", "columns") if layout is None else (layout,)
    for candidate in candidates:
        try:
            plan_matrix(header, layout=candidate, dim=dim)
        except LoadError as error:
            refused.append(error)
        else:
            allowed.append(candidate)
    if not allowed:
        raise refused[0]
    return allowed


def _choose(candidates: list[Measured]) -> tuple[Measured, str]:
    """The reading to take where the layout was not given, and why."""
    first = candidates[0]
    if len(candidates) == 1:
        return first, "the only reading that fits"
    unit = [one for one in candidates if one.reading.unit]
    if len(unit) == 1:
        return unit[0], f"only as {unit[0].plan.layout} they are unit vectors"
    if unit:
        return first, "unit vectors as rows and as columns; rows are usual"
    if first.plan.rows < first.plan.dim:
        return (
            first,
            "no unit vectors either way; rows are usual, but with more dimensions than rows think of columns",
        )
    return first, "no unit vectors either way; rows are usual"


def _judge(found: Inspection, chosen: Measured, measured: list[Measured], metric: Metric) -> None:
    reading = chosen.reading
    if reading.not_finite.count:
        found.refuse(not_finite_rows(reading.not_finite.count, reading.not_finite.first, rows=reading.rows))
    if reading.zero.count and metric == "cosine":
        found.refuse(zero_rows(reading.zero.count, reading.zero.first, rows=reading.rows))
    if reading.not_finite.count:
        return  # Norms of what is left prove nothing.
    other = next((one.norms for one in measured if one is not chosen), None)
    verdict = judge(chosen.plan, metric=metric, declared=chosen.norms, other=other)
    if verdict in (Verdict.MISMATCH, Verdict.UNPROVEN):
        found.refuse(refusal(chosen.plan, declared=chosen.norms, other=other))


def _estimate(plan: MatrixPlan) -> MemoryEstimate:
    scratch = 4 * _BATCH_ROWS * padded_rows(plan.rows)
    peak = plan.nbytes + scratch + LOAD_BUFFER_BYTES
    return MemoryEstimate(
        matrix=plan.nbytes, scratch=scratch, load_peak=peak, reload_peak=peak + plan.nbytes + scratch
    )


def _suggestion(found: Inspection, *, ids: str | None, metric: Metric) -> str:
    """YAML of the index; a JSON string is a YAML string whatever the path holds."""
    name = re.sub(r"[^a-z0-9]+", "-", PurePath(found.file).stem.lower())[:63].strip("-") or "items"
    lines = [f"uri: {msgspec.json.encode(found.file).decode()}"]
    if found.layout != "rows":
        lines.append(f"layout: {found.layout}")
    if found.layout == "transposed":
        lines.append(f"dim: {found.dim}")
    if ids is not None:
        lines.append(f"ids: {msgspec.json.encode(_printable(ids)).decode()}")
    if metric != "cosine":
        lines.append(f"metric: {metric}")
    remarks = [f"# not from a configuration file: {remark}" for remark in _refused_there(found.file, ids)]
    return "\n".join([*remarks, "indexes:", f"  {name}:", *(f"    {line}" for line in lines)])


def _refused_there(*uris: str | None) -> Iterator[str]:
    """Why a configuration file may not name what the command line may."""
    for uri in filter(None, uris):
        try:
            parse_source(_printable(uri))
        except BadUri as error:
            yield str(error)


def _printable(path: str) -> str:
    return path.encode(errors="replace").decode()
