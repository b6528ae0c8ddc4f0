"""What `kosine inspect` finds in a source: everything that a load checks, and what to configure.

A load stops at the first fault; an inspection goes on and lists them all. It never holds the matrix, and
reads a file of this machine or an object of a store in the same pinned ranges as a load does.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import KW_ONLY, dataclass
from hashlib import sha256
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
from msgspec import Struct, field

from kosine.engines.screening import is_worth_a_copy
from kosine.engines.search_plan import rounded_bytes, scratch_bytes
from kosine.errors import LoadError
from kosine.loading.artifact import LOAD_BUFFER_BYTES, not_finite_rows, zero_rows
from kosine.loading.ids import read_ids, read_ids_header
from kosine.loading.layout import plan_matrix
from kosine.loading.manifest import check_digests, check_mask_digest, check_shape, read_manifest
from kosine.loading.masks import read_mask, read_mask_header
from kosine.loading.orientation import Verdict, judge, refusal
from kosine.loading.readings import Measured, Reading, measure_flat, measure_matrix
from kosine.npy.header import read_header
from kosine.source_uri import BadUri, parse_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kosine.loading.layout import MatrixPlan
    from kosine.loading.manifest import Manifest
    from kosine.loading.source import Reader, Storage
    from kosine.npy.header import NpyHeader
    from kosine.settings import InvalidRows, Layout, Metric

__all__ = ("Inspection", "MemoryEstimate", "NamedFiles", "Refusal", "inspect_source")

_BATCH_ROWS = 128
_MAX_K = 1000


class MemoryEstimate(Struct, frozen=True, kw_only=True):
    """Bytes that serving the file takes, with batches of 128 rows."""

    matrix: int
    rounded: int
    """A copy in bfloat16, for cosine, where the CPU has AMX or, for long vectors, AVX512_BF16."""
    scratch: int
    load_peak: int
    reload_peak: int
    """Load peak while the old version, of the same size, still serves."""


class Refusal(Struct, frozen=True, kw_only=True):
    """Why the service would refuse the file."""

    code: str
    stage: str
    detail: str


class NamedFiles(Struct, frozen=True, kw_only=True):
    """What a manifest says."""

    vectors: str
    ids: str | None
    masks: dict[str, str]
    rows: int | None
    dim: int | None


class Inspection(Struct, kw_only=True):
    """What was found out; all there is, unless the file is refused."""

    file: str
    header_only: bool = False
    """Whether the values were left unread, and so nothing is said of them."""
    manifest: NamedFiles | None = None
    size: int | None = None
    """Of the vectors, in bytes."""
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
    dropped: int | None = None
    """Rows that `invalid_rows: drop` leaves out; None unless that was asked for."""
    memory: MemoryEstimate | None = None
    ids: str | None = None
    """Their dtype, once they are checked."""
    masks: dict[str, int | None] = field(default_factory=dict)
    """How many of the flags are true, once they are checked; None where the values were left unread."""
    refusals: list[Refusal] = field(default_factory=list)
    suggestion: str | None = None
    """What to write into the configuration file."""

    @property
    def good(self) -> bool:
        """Whether the service would load it, as far as it was looked at."""
        return not self.refusals

    def refuse(self, error: LoadError) -> None:
        """One more fault."""
        self.refusals.append(Refusal(code=error.code.value, stage=error.stage.value, detail=error.detail))

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """A LoadError of the block is one more fault, and ends the block."""
        try:
            yield
        except LoadError as error:
            self.refuse(error)


def inspect_source(
    uri: str,
    *,
    storage: Storage,
    layout: Layout | None = None,
    dim: int | None = None,
    ids: str | None = None,
    masks: Mapping[str, str] | None = None,
    metric: Metric = "cosine",
    invalid_rows: InvalidRows = "refuse",
    header_only: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Inspection:
    """Look at all of a file, or of what a manifest names, reading each byte once; or at the headers only.

    A `layout` of None is guessed; `progress` gets bytes read and bytes to read of the vectors. Never raises
    LoadError: what is wrong is in `Inspection.refusals`.
    """
    found = Inspection(file=_printable(uri), header_only=header_only)
    look = _Look(
        storage,
        found,
        layout=layout,
        dim=dim,
        metric=metric,
        drop=invalid_rows == "drop",
        progress=progress,
    )
    with found.noting():
        if uri.endswith(".json"):
            look.at_manifest(read_manifest(storage, uri, storage.fingerprint(uri)))
        else:
            look.at_files(uri, ids, masks or {})
    if found.good and not header_only:
        found.suggestion = _suggestion(
            found, ids=ids, masks=masks or {}, metric=metric, invalid_rows=invalid_rows
        )
    return found


@dataclass(frozen=True, slots=True)
class _Look:
    """One inspection: what was asked, and `found`, which it fills."""

    storage: Storage
    found: Inspection
    _: KW_ONLY
    layout: Layout | None
    dim: int | None
    metric: Metric
    drop: bool
    progress: Callable[[int, int], None]

    def at_manifest(self, manifest: Manifest) -> None:
        """Of what it names; a fault of one file does not hide those of the other."""
        ids = manifest.ids
        self.found.manifest = NamedFiles(
            vectors=manifest.vectors.uri,
            ids=ids.uri if ids is not None else None,
            masks={name: part.uri for name, part in manifest.masks.items()},
            rows=manifest.rows,
            dim=manifest.dim,
        )
        named = self.found.manifest
        self.at_files(named.vectors, named.ids, named.masks, manifest)

    def at_files(
        self,
        vectors: str,
        ids: str | None,
        masks: Mapping[str, str],
        manifest: Manifest | None = None,
    ) -> None:
        """LoadError where the vectors cannot be looked at; all else is in `found`."""
        hashed, hashed_ids = sha256(), b""
        with self._opened(vectors) as reader:
            self.found.size = reader.size
            self._matrix(reader, manifest, hashed.update if manifest is not None else len)
        if ids is not None and self.found.rows is not None:
            with self.found.noting(), self._opened(ids) as reader:
                hashed_ids = self._ids(reader, self.found.rows)
        if manifest is not None and self.found.readings and (ids is None or hashed_ids):
            with self.found.noting():
                check_digests(manifest, vectors=hashed.digest(), ids=hashed_ids)
        if self.found.rows is not None:
            for name, uri in masks.items():
                with self.found.noting(), self._opened(uri) as reader:
                    self._mask(reader, name, self.found.rows, manifest)

    @contextlib.contextmanager
    def _opened(self, uri: str) -> Iterator[Reader]:
        with self.storage.open(uri, self.storage.fingerprint(uri)) as reader:
            yield reader
            reader.verify()

    def _matrix(
        self, reader: Reader, manifest: Manifest | None, sink: Callable[[memoryview], object]
    ) -> None:
        found, header = self.found, read_header(reader)
        found.npy_version = f"{header.version[0]}.{header.version[1]}"
        found.shape = list(header.shape)
        found.dtype = header.dtype.str
        found.order = "Fortran" if header.fortran_order else "C"
        # Refused before the body is read, as a load would.
        plans = self._plans(header, manifest)
        if found.header_only:
            found.reason = "as given" if self.layout is not None else _by_header(plans)
            self._describe(plans[0], reader)
            return
        measured = self._measured(reader, header, plans[0], sink)
        allowed = {plan.layout for plan in plans}
        chosen, reason = _choose([one for one in measured if one.plan.layout in allowed], flat=plans[0].flat)
        found.reason = "as given" if self.layout is not None else reason
        found.readings = [one.reading for one in measured]
        self._describe(chosen.plan, reader)
        self._judge(chosen, measured)

    def _plans(self, header: NpyHeader, manifest: Manifest | None) -> list[MatrixPlan]:
        """What header, options and manifest allow, one or more; LoadError of the first where none is."""
        told = manifest.dim if manifest is not None else None
        candidates: tuple[Layout, ...] = ("rows", "columns") if self.layout is None else (self.layout,)
        if self.layout is None and len(header.shape) == 1:
            candidates = ("transposed",)
        refused: list[LoadError] = []
        allowed: list[MatrixPlan] = []
        for candidate in candidates:
            try:
                dim = self.dim if self.dim is not None or candidate != "transposed" else told
                plan = plan_matrix(header, layout=candidate, dim=dim)
                if manifest is not None:
                    check_shape(manifest, rows=plan.rows, dim=plan.dim)
            except LoadError as error:
                refused.append(error)
            else:
                allowed.append(plan)
        if not allowed:
            raise refused[0]
        return allowed

    def _measured(
        self, reader: Reader, header: NpyHeader, plan: MatrixPlan, sink: Callable[[memoryview], object]
    ) -> list[Measured]:
        def progress(done: int) -> None:
            self.progress(done, reader.size)

        if plan.flat:
            return measure_flat(reader, plan, sink=sink, progress=progress)
        return measure_matrix(reader, header, sink=sink, progress=progress)

    def _describe(self, plan: MatrixPlan, reader: Reader) -> None:
        found = self.found
        found.layout, found.rows, found.dim = plan.layout, plan.rows, plan.dim
        found.memory = _estimate(plan, self.metric, reader.buffer_bytes)

    def _judge(self, chosen: Measured, measured: list[Measured]) -> None:
        """As `read_matrix` does: what of the content is tolerated, and what norms say of the layout."""
        found, reading, scaled = self.found, chosen.reading, self.metric == "cosine"
        not_finite, zero = reading.not_finite, reading.zero
        invalid = not_finite.count + (zero.count if scaled else 0)
        if self.drop and invalid < reading.rows:
            found.dropped = invalid
        else:
            if not_finite.count:
                found.refuse(not_finite_rows(not_finite.count, not_finite.first, rows=reading.rows))
            if zero.count and scaled:
                found.refuse(zero_rows(zero.count, zero.first, rows=reading.rows))
            if not_finite.count:
                return  # Norms of what is left prove nothing.
        declared = chosen.nonzero if found.dropped is not None and scaled else chosen.norms
        other = next((one.norms for one in measured if one is not chosen), None)
        if not_finite.count:  # Across them no vector is whole.
            other = None
        verdict = judge(chosen.plan, metric=self.metric, declared=declared, other=other)
        if verdict in (Verdict.MISMATCH, Verdict.UNPROVEN):
            found.refuse(refusal(chosen.plan, declared=declared, other=other))

    def _ids(self, reader: Reader, rows: int) -> bytes:
        """Their digest, where they are read."""
        if self.found.header_only:
            self.found.ids = read_ids_header(reader, rows=rows).dtype.str
            return b""
        ids = read_ids(reader, rows=rows)
        self.found.ids = ids.values.dtype.str
        return ids.digest

    def _mask(self, reader: Reader, name: str, rows: int, manifest: Manifest | None) -> None:
        if self.found.header_only:
            read_mask_header(reader, name=name, rows=rows)
            self.found.masks[name] = None
            return
        mask = read_mask(reader, name=name, rows=rows)
        if manifest is not None:
            check_mask_digest(manifest, name, mask.digest.hex())
        self.found.masks[name] = int(np.count_nonzero(mask.flags))


def _by_header(plans: list[MatrixPlan]) -> str:
    if len(plans) == 1:
        return "the only reading that fits"
    return f"{plans[0].layout} are usual; {plans[1].layout} fit the header, too"


def _choose(candidates: list[Measured], *, flat: bool) -> tuple[Measured, str]:
    """The reading to take where the layout was not given, and why."""
    first = candidates[0]
    if flat:
        return first, "a flat array, read dim-major"
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


def _estimate(plan: MatrixPlan, metric: Metric, read_buffers: int) -> MemoryEstimate:
    rows, dim = plan.rows, plan.dim
    # The CPU it will be served on is not known.
    screened = metric == "cosine" and is_worth_a_copy("amx", rows=rows, dim=dim)
    rounded = rounded_bytes(rows=rows, dim=dim) if screened else 0
    scratch = scratch_bytes(rows=rows, dim=dim, max_rows=_BATCH_ROWS, max_k=_MAX_K, screened=screened)
    served = plan.nbytes + rounded + scratch
    peak = served + LOAD_BUFFER_BYTES + read_buffers
    return MemoryEstimate(
        matrix=plan.nbytes, rounded=rounded, scratch=scratch, load_peak=peak, reload_peak=peak + served
    )


def _suggestion(
    found: Inspection,
    *,
    ids: str | None,
    masks: Mapping[str, str],
    metric: Metric,
    invalid_rows: InvalidRows,
) -> str:
    """YAML of the index; a JSON string is a YAML string whatever the path holds."""
    name = re.sub(r"[^a-z0-9]+", "-", PurePath(found.file).stem.lower())[:63].strip("-") or "items"
    lines = [f"uri: {msgspec.json.encode(found.file).decode()}"]
    if found.layout != "rows":
        lines.append(f"layout: {found.layout}")
    if found.layout == "transposed":
        lines.append(f"dim: {found.dim}")
    if ids is not None:
        lines.append(f"ids: {msgspec.json.encode(_printable(ids)).decode()}")
    if masks:
        named = {name: _printable(uri) for name, uri in masks.items()}
        lines.append(f"masks: {msgspec.json.encode(named).decode()}")
    if metric != "cosine":
        lines.append(f"metric: {metric}")
    if invalid_rows != "refuse":
        lines.append(f"invalid_rows: {invalid_rows}")
    remarks = [
        f"# not from a configuration file: {remark}"
        for remark in _refused_there(found.file, ids, *masks.values())
    ]
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
