"""What can be said of an index and of the configuration: plain values that loading writes and HTTP shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003  msgspec reads the annotations
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from kosine.errors import LoadCode, Stage

__all__ = (
    "CanaryCheck",
    "CanaryReport",
    "Cause",
    "ConfigurationRefusal",
    "ConfigurationStatus",
    "DroppedRows",
    "IndexState",
    "LoadFailure",
    "LoadStatus",
    "Pin",
    "ReloadOutcome",
    "ServedVersion",
    "VersionInfo",
)


Cause = Literal["source", "copy", "rollback"]
"""How a version came to be served: from its source, from the local copy of a source that did not answer, or
because somebody went back to it."""


class IndexState(StrEnum):
    """Whether an index answers. A failed reload of an available index stays `AVAILABLE`."""

    LOADING = "loading"
    FAILED = "failed"
    AVAILABLE = "available"
    UNLOADING = "unloading"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFailure:
    """The last failed reload since the last good one."""

    code: LoadCode
    stage: Stage
    detail: str
    at: datetime
    consecutive: int
    """Failures in a row, this one included."""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryCheck:
    """What one check of a new version found, in percent."""

    name: Literal["row_drift", "golden", "overlap"]
    outcome: Literal["passed", "failed", "skipped"]
    expected: float
    """`row_drift`: at most; the others: at least."""
    came: float | None = None
    """None where it was skipped."""
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryReport:
    """What the canary of the last load found, whether the version was published or refused for it."""

    version: str | None
    """None where the header was enough to refuse it."""
    at: datetime
    checks: tuple[CanaryCheck, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedVersion:
    """One version of the history of an index."""

    version: str
    digest: str
    fingerprint: str
    rows: int
    dim: int
    cause: Cause
    published_at: datetime
    retired_at: datetime | None
    """None: it serves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Holds an index at a version, whatever its source holds."""

    version: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadStatus:
    """What loading is doing for one index."""

    stage: Stage | None = None
    """The running step; None between reloads."""
    bytes_read: int = 0
    bytes_total: int = 0
    checked_at: datetime | None = None
    """When the source was last looked at."""
    last_error: LoadFailure | None = None
    stale: bool = False
    """Whether what serves comes from a local copy, and the store has not confirmed it yet."""
    outdated: bool = False
    """Whether what serves was loaded with other settings than those in force."""
    canary: CanaryReport | None = None
    """Of the last load that had one."""
    history: tuple[ServedVersion, ...] = ()
    """The version that serves and those before it, newest first."""
    pin: Pin | None = None
    waits: bool = False
    """Whether the source holds something else than the pinned version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedRows:
    """Rows of the file that were left out."""

    not_finite: int
    zero: int
    first: tuple[int, ...]
    """Numbers of the first ten in the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionInfo:
    """Identity and size of one loaded version; never changes."""

    name: str
    version: str
    """First 16 hex digits of `digest`: equal on every replica that loaded the same content."""
    digest: str
    """SHA-256 over the decoding settings, the matrix file and the ids file."""
    fingerprint: str
    source: str
    rows: int
    dim: int
    dtype: str
    """Of the file, as NumPy writes it: `<f4`."""
    metric: Literal["cosine", "dot"]
    bytes: int
    device: str
    norm_min: float
    norm_max: float
    loaded_at: datetime
    load_seconds: float
    modified: float | None = None
    """When vectors, ids or manifest were last written, in seconds since 1970, where their store says."""
    dropped: DroppedRows | None = None
    single_query: str = "graph"
    """The way that a query by itself takes, by what warm-up measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadOutcome:
    """How a reload that was asked for ended."""

    outcome: Literal["published", "masks_published", "unchanged", "failed"]
    version: str | None
    """The version that serves now."""
    error: LoadFailure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationRefusal:
    """Why the configuration file as it is now is not in force."""

    hash: str | None
    """None where the file cannot be read."""
    detail: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationStatus:
    """Which content of the configuration file is in force; nothing where there is no file."""

    hash: str | None = None
    """SHA-256 (hex) of the bytes of the file: whoever wrote it can tell that it has arrived."""
    applied_at: datetime | None = None
    restart_needed: tuple[str, ...] = ()
    """Settings of `service` in the file that wait for a restart."""
    refused: ConfigurationRefusal | None = None
