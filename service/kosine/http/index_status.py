"""What `GET /indexes` shows of an index; a pure view of registry and load status."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime  # noqa: TC003  msgspec and the OpenAPI generator read the annotations
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from kosine.serving import status
    from kosine.serving.masks import NamedMask
    from kosine.serving.registry import Registry
    from kosine.serving.status import LoadFailure
    from kosine.serving.version import Version

__all__ = (
    "Canary",
    "CanaryCheck",
    "DroppedRows",
    "EarlierVersion",
    "IndexList",
    "IndexStatus",
    "LastError",
    "MaskStatus",
    "Norms",
    "PinStatus",
    "ReloadResult",
    "index_status",
)


class Norms(Struct, kw_only=True):
    """Smallest and largest row norm of the file, before normalisation."""

    min: float
    max: float


class DroppedRows(Struct, kw_only=True):
    """Rows that `invalid_rows: drop` left out, and the numbers of the first ten in the file."""

    not_finite: int
    zero: int
    first: list[int]


class MaskStatus(Struct, kw_only=True):
    """One named mask of the version that answers."""

    digest: str
    """First 16 hex digits of the file's SHA-256: equal on every replica that loaded the same mask."""
    true: int
    """Items that `mask` of this name can find."""
    loaded_at: datetime


class LastError(Struct, kw_only=True):
    """The last failed reload since the last good one."""

    code: str
    stage: str
    detail: str
    at: datetime
    consecutive: int
    facts: dict[str, Any]


class CanaryCheck(Struct, kw_only=True):
    """One check of a new version, in percent; `came` is null where it was skipped."""

    name: str
    outcome: Literal["passed", "failed", "skipped"]
    expected: float
    came: float | None
    detail: str


class Canary(Struct, kw_only=True):
    """What the last load was checked for before publication; `version` is null where the header told."""

    version: str | None
    at: datetime
    passed: bool
    checks: list[CanaryCheck]


class EarlierVersion(Struct, kw_only=True):
    """A version that the index serves (`retired_at` null) or served."""

    version: str
    digest: str
    fingerprint: str
    rows: int
    dim: int
    cause: Literal["source", "copy", "rollback"]
    published_at: datetime
    retired_at: datetime | None


class PinStatus(Struct, kw_only=True):
    """The version that is served whatever the source holds; `waits`: it holds something else."""

    version: str
    at: datetime
    waits: bool


class IndexStatus(Struct, kw_only=True):
    """One index. What a version tells is null until the first one is published."""

    name: str
    state: str
    source: str
    required: bool
    version: str | None = None
    rows: int | None = None
    dim: int | None = None
    dtype: str | None = None
    metric: str | None = None
    bytes: int | None = None
    norms: Norms | None = None
    dropped: DroppedRows | None = None
    masks: dict[str, MaskStatus] | None = None
    fingerprint: str | None = None
    digest: str | None = None
    device: str | None = None
    single_query: str | None = None
    """The way that a query by itself takes: `graph` as batches do, or `blas` where that measured faster."""
    loaded_at: datetime | None = None
    load_seconds: float | None = None
    k: int | None = None
    max_k: int | None = None
    checked_at: datetime | None = None
    stage: str | None = None
    bytes_read: int = 0
    bytes_total: int = 0
    stale: bool = False
    outdated: bool = False
    """Whether the version was loaded with other settings than those in force."""
    last_error: LastError | None = None
    canary: Canary | None = None
    pinned: PinStatus | None = None
    history: list[EarlierVersion] = []
    """Newest first."""


class IndexList(Struct, kw_only=True):
    """Every configured index, by name."""

    indexes: list[IndexStatus]
    default_index: str | None


class ReloadResult(Struct, kw_only=True):
    """How a reload that was asked for ended, and the version that serves now."""

    outcome: Literal["published", "masks_published", "unchanged"]
    version: str | None


def index_status(registry: Registry, name: str) -> IndexStatus:
    """The status of `name` now. Raises UnknownIndex."""
    load = registry.load_status(name)
    version = registry.current(name)
    return IndexStatus(
        name=name,
        state=registry.state(name).value,
        source=registry.source(name),
        required=registry.required(name),
        checked_at=load.checked_at,
        stage=None if load.stage is None else load.stage.value,
        bytes_read=load.bytes_read,
        bytes_total=load.bytes_total,
        stale=load.stale,
        outdated=load.outdated and version is not None,
        last_error=None if load.last_error is None else _last_error(load.last_error),
        canary=None if load.canary is None else _canary(load.canary),
        pinned=None if load.pin is None else PinStatus(**asdict(load.pin), waits=load.waits),
        history=[EarlierVersion(**asdict(each)) for each in load.history],
        **({} if version is None else _version_fields(version)),
    )


def _version_fields(version: Version) -> dict[str, Any]:
    info = version.info
    return {
        "version": info.version,
        "rows": info.rows,
        "dim": info.dim,
        "dtype": info.dtype,
        "metric": info.metric,
        "bytes": info.bytes,
        "norms": Norms(min=info.norm_min, max=info.norm_max),
        "dropped": None if info.dropped is None else _dropped(info.dropped),
        "masks": {name: _mask(mask) for name, mask in version.masks.named.items()},
        "fingerprint": info.fingerprint,
        "digest": info.digest,
        "device": info.device,
        "single_query": info.single_query,
        "loaded_at": info.loaded_at,
        "load_seconds": info.load_seconds,
        "k": version.settings.k,
        "max_k": version.settings.max_k,
    }


def _mask(mask: NamedMask) -> MaskStatus:
    return MaskStatus(digest=mask.short_digest, true=mask.true, loaded_at=mask.loaded_at)


def _dropped(told: status.DroppedRows) -> DroppedRows:
    return DroppedRows(not_finite=told.not_finite, zero=told.zero, first=list(told.first))


def _canary(report: status.CanaryReport) -> Canary:
    return Canary(
        version=report.version,
        at=report.at,
        passed=all(check.outcome != "failed" for check in report.checks),
        checks=[CanaryCheck(**asdict(check)) for check in report.checks],
    )


def _last_error(failure: LoadFailure) -> LastError:
    return LastError(
        code=failure.code.value,
        stage=failure.stage.value,
        detail=failure.detail,
        at=failure.at,
        consecutive=failure.consecutive,
        facts=failure.facts,
    )
