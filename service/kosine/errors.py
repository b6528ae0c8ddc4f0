"""Everything that kosine refuses, in one tree.

KosineError
├── RequestError                    one caller is told; nobody else notices
│   ├── BadJson                 400 bad_json
│   ├── BadRequest              400 bad_request           (not one clear HTTP request)
│   ├── JsonTooDeep             400 json_too_deep
│   ├── BadEncoding             400 bad_encoding
│   ├── UnknownIndex            404 unknown_index
│   ├── UnknownId               404 unknown_id
│   ├── UnknownMask             404 unknown_mask
│   ├── UnknownVersion          404 unknown_version
│   ├── NotFound                404 not_found
│   ├── MethodNotAllowed        405 method_not_allowed
│   ├── NotAcceptable           406 not_acceptable
│   ├── BodyTimeout             408 body_timeout
│   ├── ReloadFailed            409 reload_failed
│   ├── VersionMismatch         409 version_mismatch
│   ├── VersionGone             409 version_gone
│   ├── IndexPinned             409 index_pinned
│   ├── BodyTooLarge            413 body_too_large
│   ├── UnsupportedMediaType    415 unsupported_media_type
│   ├── DimMismatch             422 dim_mismatch
│   ├── NotFinite               422 not_finite
│   ├── ZeroVector              422 zero_vector
│   ├── BadK                    422 bad_k
│   ├── BadCursor               422 bad_cursor
│   ├── UnknownField            422 unknown_field
│   ├── InvalidValue            422 invalid_value
│   ├── TooManyRows             422 too_many_rows
│   ├── TooManyIds              422 too_many_ids
│   ├── Overloaded              429 overloaded            (Retry-After)
│   ├── HeadTooLarge            431 head_too_large
│   ├── InternalError           500 internal_error        (a defect of ours)
│   ├── IndexNotReady           503 index_not_ready       (Retry-After)
│   ├── EngineFailed            503 engine_error          (Retry-After)
│   ├── TooManyConnections      503 too_many_connections  (Retry-After)
│   ├── ShuttingDown            503 shutting_down         (Retry-After)
│   └── DeadlineExceeded        504 deadline_exceeded
├── Abandoned                       the client is gone: its query is dropped and nobody is told
├── LoadError                       a reload failed; the last good version serves on (see LoadCode)
├── ConfigurationError              a setting is wrong; at start exit 2, live the old configuration stays
└── StartupError                    the process cannot do what it was asked to; exit 2

A `code` is stable: clients, metrics, logs and status use it. Text may change, codes may not.
Facts are numbers and names a caller can act on; never vectors, host paths or secrets.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar

__all__ = (
    "Abandoned",
    "BadCursor",
    "BadEncoding",
    "BadJson",
    "BadK",
    "BadRequest",
    "BodyTimeout",
    "BodyTooLarge",
    "ConfigurationError",
    "DeadlineExceeded",
    "DimMismatch",
    "EngineFailed",
    "HeadTooLarge",
    "IndexNotReady",
    "IndexPinned",
    "InternalError",
    "InvalidValue",
    "JsonTooDeep",
    "KosineError",
    "LoadCode",
    "LoadError",
    "MethodNotAllowed",
    "NotAcceptable",
    "NotFinite",
    "NotFound",
    "Overloaded",
    "ReloadFailed",
    "RequestError",
    "ShuttingDown",
    "Stage",
    "StartupError",
    "TooManyConnections",
    "TooManyIds",
    "TooManyRows",
    "UnknownField",
    "UnknownId",
    "UnknownIndex",
    "UnknownMask",
    "UnknownVersion",
    "UnsupportedMediaType",
    "VersionGone",
    "VersionMismatch",
    "ZeroVector",
)


class KosineError(Exception):
    """Root of the tree: `detail` says what was expected, what came and what to do."""

    def __init__(self, detail: str, **facts: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts = facts


class RequestError(KosineError):
    """One request is refused. `retry_after` (seconds) is set where trying again helps."""

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, detail: str, *, retry_after: int | None = None, **facts: Any) -> None:
        super().__init__(detail, **facts)
        self.retry_after = retry_after


class BadJson(RequestError):
    """The body is not JSON."""

    status, code, title = 400, "bad_json", "Body is not JSON"


class BadRequest(RequestError):
    """What arrived is not an HTTP/1.1 request that can be answered safely."""

    status, code, title = 400, "bad_request", "Bad request"


class JsonTooDeep(RequestError):
    """The body nests deeper than any request needs."""

    status, code, title = 400, "json_too_deep", "JSON is nested too deeply"


class BadEncoding(RequestError):
    """The body is not UTF-8."""

    status, code, title = 400, "bad_encoding", "Body is not UTF-8"


class UnknownIndex(RequestError):
    """No index of that name is configured."""

    status, code, title = 404, "unknown_index", "No such index"


class UnknownId(RequestError):
    """The index holds no item of that id."""

    status, code, title = 404, "unknown_id", "No such item"


class UnknownMask(RequestError):
    """The index has no mask of that name."""

    status, code, title = 404, "unknown_mask", "No such mask"


class UnknownVersion(RequestError):
    """No version of that name is among those that the index served last."""

    status, code, title = 404, "unknown_version", "No such version"


class NotFound(RequestError):
    """No route of that path."""

    status, code, title = 404, "not_found", "No such path"


class MethodNotAllowed(RequestError):
    """The path exists, the method does not."""

    status, code, title = 405, "method_not_allowed", "Method not allowed"


class NotAcceptable(RequestError):
    """The caller accepts no format in which answers are written."""

    status, code, title = 406, "not_acceptable", "Not acceptable"


class BodyTimeout(RequestError):
    """The body did not arrive in time."""

    status, code, title = 408, "body_timeout", "Body came too slowly"


class ReloadFailed(RequestError):
    """A reload that was asked for failed; `reason` and `stage` say how."""

    status, code, title = 409, "reload_failed", "Reload failed, the last good version serves on"


class VersionMismatch(RequestError):
    """Another version would answer than the one that the caller insists on."""

    status, code, title = 409, "version_mismatch", "Another version answers"


class VersionGone(RequestError):
    """What was asked for belongs to a version that is held no longer; `version` is the one that is."""

    status, code, title = 409, "version_gone", "That version is gone"


class IndexPinned(RequestError):
    """The index is held at a version, so its source is not loaded."""

    status, code, title = 409, "index_pinned", "Index is pinned"


class BodyTooLarge(RequestError):
    """The body is longer than the configured limit."""

    status, code, title = 413, "body_too_large", "Body too large"


class UnsupportedMediaType(RequestError):
    """Content-Type or Content-Encoding is not one that is read here."""

    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


class DimMismatch(RequestError):
    """The query has another length than the rows of the index."""

    status, code, title = 422, "dim_mismatch", "Wrong embedding length"


class NotFinite(RequestError):
    """The query, or a score of it, does not fit a finite float32."""

    status, code, title = 422, "not_finite", "Not finite as float32"


class ZeroVector(RequestError):
    """A zero vector has no direction, so it has no cosine."""

    status, code, title = 422, "zero_vector", "Zero vector"


class BadK(RequestError):
    """`k` is not an integer within 1..max_k."""

    status, code, title = 422, "bad_k", "Bad k"


class BadCursor(RequestError):
    """`after` is no cursor, or one of another query."""

    status, code, title = 422, "bad_cursor", "Not a cursor of this query"


class UnknownField(RequestError):
    """The body has a field that is not part of the request."""

    status, code, title = 422, "unknown_field", "Unknown field"


class InvalidValue(RequestError):
    """A field or header has the wrong type or lies outside its bounds."""

    status, code, title = 422, "invalid_value", "Invalid value"


class TooManyRows(RequestError):
    """One request asks more queries than the index takes at once."""

    status, code, title = 422, "too_many_rows", "Too many queries in one request"


class TooManyIds(RequestError):
    """One request names more items than are read at once."""

    status, code, title = 422, "too_many_ids", "Too many ids in one request"


class Overloaded(RequestError):
    """The queue of the index is full."""

    status, code, title = 429, "overloaded", "Overloaded"


class HeadTooLarge(RequestError):
    """Request line and headers are longer, or more, than any client needs."""

    status, code, title = 431, "head_too_large", "Request head too large"


class InternalError(RequestError):
    """A defect of kosine; the log has the traceback under the request id."""

    status, code, title = 500, "internal_error", "Internal error"


class IndexNotReady(RequestError):
    """The index is configured, but no version of it has been loaded yet."""

    status, code, title = 503, "index_not_ready", "Index not ready"


class EngineFailed(RequestError):
    """The engine raised on this query, or is failing on every query."""

    status, code, title = 503, "engine_error", "Engine error"


class TooManyConnections(RequestError):
    """As many connections are open as the service was told to hold."""

    status, code, title = 503, "too_many_connections", "Too many connections"


class ShuttingDown(RequestError):
    """The process is stopping."""

    status, code, title = 503, "shutting_down", "Shutting down"


class DeadlineExceeded(RequestError):
    """The answer was not there when the request's time was up."""

    status, code, title = 504, "deadline_exceeded", "Deadline exceeded"


class Abandoned(KosineError):
    """The client closed its connection before the answer was there."""


class Stage(StrEnum):
    """The steps of a reload, in order; a failure names the step it happened in."""

    FINGERPRINT = "fingerprint"
    GATE = "gate"
    ADMIT = "admit"
    FETCH = "fetch"
    CHECK = "check"
    BUILD = "build"
    WARM_UP = "warm_up"
    CANARY = "canary"
    PUBLISH = "publish"


class LoadCode(StrEnum):
    """Why a reload failed."""

    SOURCE_MISSING = "source_missing"
    SOURCE_FORBIDDEN = "source_forbidden"
    SOURCE_UNREADABLE = "source_unreadable"
    MISSING_EXTRA = "missing_extra"
    NOT_A_FILE = "not_a_file"
    CHANGED_WHILE_READING = "changed_while_reading"
    UNSETTLED = "unsettled"
    BAD_URI = "bad_uri"
    BAD_MANIFEST = "bad_manifest"
    DIGEST_MISMATCH = "digest_mismatch"
    BAD_MAGIC = "bad_magic"
    BAD_HEADER = "bad_header"
    UNSUPPORTED_VERSION = "unsupported_version"
    DTYPE_NOT_ALLOWED = "dtype_not_allowed"
    BAD_SHAPE = "bad_shape"
    EMPTY_MATRIX = "empty_matrix"
    SIZE_MISMATCH = "size_mismatch"
    DIM_REQUIRED = "dim_required"
    DIM_NOT_DECLARED = "dim_not_declared"
    LAYOUT_MISMATCH = "layout_mismatch"
    LAYOUT_UNPROVEN = "layout_unproven"
    NOT_FINITE = "not_finite"
    ZERO_ROWS = "zero_rows"
    IDS_INVALID = "ids_invalid"
    IDS_LENGTH = "ids_length"
    IDS_DUPLICATE = "ids_duplicate"
    MASK_INVALID = "mask_invalid"
    MASK_LENGTH = "mask_length"
    DIM_CHANGED = "dim_changed"
    GUARD_FAILED = "guard_failed"
    BAD_GOLDEN = "bad_golden"
    CANARY_FAILED = "canary_failed"
    VERSION_GONE = "version_gone"
    WONT_FIT = "wont_fit"
    TIMED_OUT = "timed_out"
    BUILD_FAILED = "build_failed"
    OUT_OF_DEVICE_MEMORY = "out_of_device_memory"
    SELF_CHECK_FAILED = "self_check_failed"
    CANCELLED = "cancelled"
    DEFECT = "defect"


class LoadError(KosineError):
    """A reload failed at `stage` for the reason `code`."""

    def __init__(self, code: LoadCode, detail: str, *, stage: Stage, **facts: Any) -> None:
        super().__init__(detail, **facts)
        self.code = code
        self.stage = stage


class ConfigurationError(KosineError):
    """A setting is unknown, duplicate or bad; `detail` names key, value and what is allowed."""


class StartupError(KosineError):
    """The process cannot start as asked: port taken, no GPU, no such file."""
