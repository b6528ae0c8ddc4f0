"""What can be configured: one frozen value per section, each field with its default, bounds and meaning.

Everything said of a field is data beside it: `Within` are its bounds, `Change` says what it takes for a new
value to count. The converter enforces them and docs/configuration.md is generated from them.
`kosine.configuration` turns a file or command-line options into a `Settings`; nothing else builds one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from kosine.units import Duration, Size, Within

__all__ = (
    "CREDENTIALS_PATTERN",
    "INDEX_NAME_PATTERN",
    "MASK_NAME_PATTERN",
    "MAX_MASKS",
    "BatchSettings",
    "CanarySettings",
    "Change",
    "DefaultSettings",
    "Duration",
    "Folders",
    "GcsSettings",
    "GuardSettings",
    "IndexSettings",
    "InvalidRows",
    "Located",
    "RefreshSettings",
    "S3Settings",
    "ServiceSettings",
    "Settings",
    "Size",
    "StoresSettings",
)

INDEX_NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
MASK_NAME_PATTERN = r"^[a-z0-9]([-_a-z0-9]{0,61}[a-z0-9])?$"
MAX_MASKS = 16
"""Of one index: each is a file that every look asks for, and a byte a row."""
CREDENTIALS_PATTERN = r"^[A-Za-z0-9][-_.A-Za-z0-9]{0,252}$"
"""A key of a Secret that is no hidden file: kubelets keep links of their own beside them."""


class Change(StrEnum):
    """What it takes for a new value of a running service to count."""

    HOT = "hot"
    """Nothing: the next query, batch or look at the source uses it."""
    RELOAD = "reload"
    """The index is loaded again, which happens by itself; the old version answers meanwhile."""
    RESTART = "restart"
    """A new process; a live configuration file keeps the old value and says so in the log."""


class Located:
    """Marks a path or URL: relative ones are resolved, and only what `kosine.source_uri` allows passes."""


class Folders:
    """Marks a folder of this machine, or several: relative ones are resolved."""


LOCATED = Located()
FOLDERS = Folders()

Layout = Literal["rows", "columns", "transposed"]
Metric = Literal["cosine", "dot"]
InvalidRows = Literal["refuse", "drop"]
Device = Literal["auto", "cpu", "gpu"]
Screening = Literal["auto", "never"]
Policy = Literal["availability_preserving", "resource_preserving"]


class RefreshSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a source is looked at again."""

    interval: Annotated[
        Duration,
        Meta(description="Poll the source this often, jittered by 10 %."),
        Within("1s", "1d"),
        Change.HOT,
    ] = Duration(30.0)
    watch: Annotated[
        bool,
        Meta(description="Also watch the folder of a local source, so that a change is seen at once."),
        Change.HOT,
    ] = True
    settle: Annotated[
        Duration,
        Meta(description="A changed file must look the same for this long before it is read."),
        Within("50ms", "10s"),
        Change.HOT,
    ] = Duration(0.25)
    timeout: Annotated[
        Duration,
        Meta(description="A load that takes longer is given up; the old version serves on."),
        Within("1s", "1d"),
        Change.HOT,
    ] = Duration(600.0)


class BatchSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How concurrent queries of one index become engine calls. See docs/batching.md."""

    max_rows: Annotated[
        int, Meta(description="Most rows of one engine call."), Within(1, 4096), Change.RELOAD
    ] = 128
    linger: Annotated[
        Duration,
        Meta(
            description="After a batch, wait at most this long for its callers to come back; 0 = do not wait."
        ),
        Within("0s", "1ms"),
        Change.HOT,
    ] = Duration(0.001)
    queue_rows: Annotated[
        int,
        Meta(description="Queued rows past which a query is answered 429."),
        Within(1, 1_000_000),
        Change.HOT,
    ] = 4096
    queue_bytes: Annotated[
        Size,
        Meta(description="Queued bytes of query vectors past which a query is answered 429."),
        Within("256KiB", "64GiB"),
        Change.HOT,
    ] = Size(64 * 2**20)


class GuardSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a valid new file must also satisfy before it replaces the old one."""

    dim_change: Annotated[
        Literal["refuse", "allow"],
        Meta(description="Whether a new file may have another dimension than the version being served."),
        Change.HOT,
    ] = "refuse"
    min_rows: Annotated[
        int | None, Meta(description="Refuse a file with fewer rows."), Within(1, 2**31 - 1), Change.HOT
    ] = None
    max_shrink_percent: Annotated[
        float | None,
        Meta(description="Refuse a file that lost more than this share of the served rows."),
        Within(0, 100),
        Change.HOT,
    ] = None


class CanarySettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a new version must show, once it is loaded and before callers get it."""

    max_row_drift_percent: Annotated[
        float | None,
        Meta(
            description="Refuse a version whose number of rows differs by more, up or down, from the served."
        ),
        Within(0, 10_000),
        Change.HOT,
    ] = None
    golden: Annotated[
        str | None,
        Meta(description="`.json` file of queries and the ids that they must find."),
        LOCATED,
        Change.HOT,
    ] = None
    min_overlap_percent: Annotated[
        float | None,
        Meta(
            description="Refuse a version in which sampled items keep less of the neighbours that they have "
            "in the served one."
        ),
        Within(0, 100),
        Change.HOT,
    ] = None
    overlap_k: Annotated[
        int,
        Meta(description="Neighbours of an item that are compared; at most `max_k`."),
        Within(1, 100),
        Change.HOT,
    ] = 10
    overlap_sample: Annotated[
        int, Meta(description="Items whose neighbours are compared."), Within(1, 1000), Change.HOT
    ] = 100


class DefaultSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every index inherits unless it says otherwise."""

    k: Annotated[
        int,
        Meta(description="Results of a query that names no `k`; at most `max_k`."),
        Within(1, 16384),
        Change.HOT,
    ] = 10
    max_k: Annotated[
        int, Meta(description="Largest `k` a query may ask for."), Within(1, 16384), Change.RELOAD
    ] = 1000
    max_query_rows: Annotated[
        int, Meta(description="Most queries of one request."), Within(1, 4096), Change.HOT
    ] = 256
    timeout: Annotated[
        Duration,
        Meta(description="Deadline of a query that sends no X-Request-Timeout-Ms."),
        Within("1ms", "60s"),
        Change.HOT,
    ] = Duration(2.0)
    policy: Annotated[
        Policy,
        Meta(
            description="`availability_preserving` loads the new version before it drops the old one; "
            "`resource_preserving` drops first, where memory holds only one (503 meanwhile)."
        ),
        Change.HOT,
    ] = "availability_preserving"
    required: Annotated[
        bool,
        Meta(
            description="Whether /readyz waits until this index was tried, and at least one of those that it "
            "waits for is loaded."
        ),
        Change.HOT,
    ] = True
    history: Annotated[
        int,
        Meta(
            description="Versions served before the present one that are remembered for a rollback; "
            "`service.cache_dir` keeps their files."
        ),
        Within(0, 32),
        Change.HOT,
    ] = 1
    refresh: RefreshSettings = field(default_factory=RefreshSettings)
    batch: BatchSettings = field(default_factory=BatchSettings)
    guard: GuardSettings = field(default_factory=GuardSettings)
    canary: CanarySettings = field(default_factory=CanarySettings)


class IndexSettings(DefaultSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One index: where its matrix is, how to read it, and anything of `defaults` it overrides."""

    uri: Annotated[
        str,
        Meta(
            description="The `.npy` file of the matrix, or a `.json` manifest that names it, its ids and "
            "masks."
        ),
        LOCATED,
        Change.RELOAD,
    ]
    ids: Annotated[
        str | None,
        Meta(
            description="`.npy` file of N unique item ids (int64 or fixed-width unicode); "
            "without it ids are row numbers."
        ),
        LOCATED,
        Change.RELOAD,
    ] = None
    masks: Annotated[
        dict[str, str],
        Meta(
            description="`.npy` files of N bools by the names that queries give them: which items "
            "`mask` and `not_mask` find."
        ),
        LOCATED,
        Change.HOT,
    ] = field(default_factory=dict)
    layout: Annotated[
        Layout,
        Meta(
            description="`rows` = (N, d); `columns` = (d, N); `transposed` = 1-D, dim-major, needs `dim`: "
            "the file that `np.transpose(unit_rows).flatten()` makes."
        ),
        Change.RELOAD,
    ] = "rows"
    dim: Annotated[
        int | None,
        Meta(description="Dimension; needed by `transposed`, else checked if given."),
        Within(1, 65536),
        Change.RELOAD,
    ] = None
    metric: Annotated[
        Metric,
        Meta(description="`cosine` normalises rows and query; `dot` takes both as they are."),
        Change.RELOAD,
    ] = "cosine"
    check_layout: Annotated[
        bool,
        Meta(description="Refuse a file whose norms say that it has the other orientation, or neither."),
        Change.RELOAD,
    ] = True
    credentials: Annotated[
        str | None,
        Meta(
            description="Name of the file in `service.stores.credentials_dir` to read the source with; "
            "null = with the credentials of the process."
        ),
        Change.RELOAD,
    ] = None
    invalid_rows: Annotated[
        InvalidRows,
        Meta(
            description="A row with NaN or infinity, or (`cosine`) of zeros: `refuse` the file, or "
            "`drop` the row and serve the others."
        ),
        Change.RELOAD,
    ] = "refuse"

    @property
    def has_manifest(self) -> bool:
        """Whether `uri` names a manifest, which says where the files are."""
        return self.uri.endswith(".json")


class S3Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where s3:// is. Credentials come from the environment: keys, profile, web identity, instance."""

    endpoint_url: Annotated[
        str | None,
        Meta(description="URL of the S3 server; null = Amazon's, by region."),
        Change.RESTART,
    ] = None
    region: Annotated[
        str | None, Meta(description="Region of the buckets; null = the environment's."), Change.RESTART
    ] = None
    anon: Annotated[bool, Meta(description="Send unsigned requests, for public buckets."), Change.RESTART] = (
        False
    )


class GcsSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where gs:// is. Credentials come from the environment: Application Default Credentials."""

    endpoint_url: Annotated[
        str | None, Meta(description="URL of the storage API; null = Google's."), Change.RESTART
    ] = None
    anon: Annotated[bool, Meta(description="Send no credentials, for public buckets."), Change.RESTART] = (
        False
    )


class StoresSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Requests to object stores. See docs/sources.md."""

    s3: S3Settings = field(default_factory=S3Settings)
    gcs: GcsSettings = field(default_factory=GcsSettings)
    credentials_dir: Annotated[
        str | None,
        Meta(
            description="Folder of files with credentials that indexes may name, looked up whenever they are "
            "needed; null = none."
        ),
        FOLDERS,
        Change.RESTART,
    ] = None
    parallel: Annotated[
        int,
        Meta(description="Range requests of one load in flight; each takes 8 MiB of memory."),
        Within(1, 64),
        Change.RESTART,
    ] = 6
    idle_timeout: Annotated[
        Duration,
        Meta(description="A connection that brings no byte for this long is closed, the request retried."),
        Within("100ms", "10m"),
        Change.RESTART,
    ] = Duration(15.0)
    request_timeout: Annotated[
        Duration,
        Meta(description="Time for 8 MiB of an object, retries included; past it the load fails."),
        Within("1s", "1h"),
        Change.RESTART,
    ] = Duration(120.0)


class ServiceSettings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The process itself."""

    host: Annotated[
        str, Meta(description="Address to listen on; `0.0.0.0` is every one."), Change.RESTART
    ] = "127.0.0.1"
    port: Annotated[
        int, Meta(description="Port to listen on; 0 takes a free one."), Within(0, 65535), Change.RESTART
    ] = 8080
    device: Annotated[
        Device,
        Meta(description="`gpu` without a usable one refuses to start; `auto` falls back to the CPU."),
        Change.RESTART,
    ] = "auto"
    threads: Annotated[
        int | None,
        Meta(description="Threads of one engine call; null = the CPU limit."),
        Within(1, 1024),
        Change.RESTART,
    ] = None
    screening: Annotated[
        Screening,
        Meta(
            description="`auto`: where the CPU multiplies bfloat16 (AMX, AVX512_BF16), cosine indexes of "
            "long vectors keep a copy in it, half their size, that chooses what float32 scores: as exact, up "
            "to twice as fast. `never`: no copy."
        ),
        Change.RESTART,
    ] = "auto"
    memory_limit: Annotated[
        Size | None,
        Meta(
            description="Memory that loading must stay within; null = the limit of the cgroup or the machine."
        ),
        Within("64MiB", "64TiB"),
        Change.RESTART,
    ] = None
    file_roots: Annotated[
        tuple[str, ...] | None,
        Meta(
            description="Folders that files named by the configuration file must lie in, links included; "
            "null = the folder of the configuration file. Files of the command line are added."
        ),
        FOLDERS,
        Change.RESTART,
    ] = None
    cache_dir: Annotated[
        str | None,
        Meta(
            description="Folder for local copies: of the last good version of every index in a store, served "
            "(`stale`) where the store is down at start, and of the versions in `history`; null = none."
        ),
        FOLDERS,
        Change.RESTART,
    ] = None
    load_slots: Annotated[
        int, Meta(description="Indexes that may load at the same time."), Within(1, 64), Change.RESTART
    ] = 2
    load_nice: Annotated[
        int,
        Meta(description="Niceness added to threads that load, so that requests come first; 0 = none."),
        Within(0, 19),
        Change.RESTART,
    ] = 10
    load_share_percent: Annotated[
        int,
        Meta(
            description="Share of its time that a thread which loads beside a served version computes; it "
            "rests between, so that requests find the cores free; 100 = no rests."
        ),
        Within(1, 100),
        Change.RESTART,
    ] = 30
    max_timeout: Annotated[
        Duration,
        Meta(description="Longest deadline that X-Request-Timeout-Ms may ask for."),
        Within("1ms", "1h"),
        Change.RESTART,
    ] = Duration(60.0)
    body_limit: Annotated[
        Size, Meta(description="Largest request body."), Within("1KiB", "1GiB"), Change.RESTART
    ] = Size(2**20)
    header_timeout: Annotated[
        Duration,
        Meta(description="A connection must send its request head within this time."),
        Within("100ms", "1h"),
        Change.RESTART,
    ] = Duration(10.0)
    body_timeout: Annotated[
        Duration, Meta(description="... its body within this time."), Within("100ms", "1h"), Change.RESTART
    ] = Duration(10.0)
    send_timeout: Annotated[
        Duration,
        Meta(description="... and take its answer within this time."),
        Within("100ms", "1h"),
        Change.RESTART,
    ] = Duration(10.0)
    max_connections: Annotated[
        int,
        Meta(description="Open connections past which a new one is closed."),
        Within(1, 1_000_000),
        Change.RESTART,
    ] = 4096
    drain_delay: Annotated[
        Duration,
        Meta(description="After SIGTERM: stay up but unready this long before closing."),
        Within("0s", "1h"),
        Change.RESTART,
    ] = Duration(0.0)
    grace: Annotated[
        Duration,
        Meta(description="After that: time for requests in flight to finish."),
        Within("0s", "1h"),
        Change.RESTART,
    ] = Duration(30.0)
    stores: StoresSettings = field(default_factory=StoresSettings)


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole configuration, defaults already merged into every index."""

    service: ServiceSettings = field(default_factory=ServiceSettings)
    indexes: dict[str, IndexSettings] = field(default_factory=dict)
    default_index: str | None = None
