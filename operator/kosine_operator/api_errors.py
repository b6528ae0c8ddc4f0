"""What the API server may answer instead of doing what it was asked, and what follows from each.

```
ApiError
├── Unreachable       no answer, or one that says "later": asked again after the back-off
│   └── Throttled     429: not before the seconds that the server named
├── NotFound          the object, or its whole kind, is not there
├── Conflict          the object is another one than expected, or of somebody else
├── Forbidden         RBAC, quota, Pod Security, a namespace that is going away; somebody has to act
└── Refused           what was sent can never be accepted; asking again is no use until it changes
```

The classes are independent of the client library, so that nothing but `cluster` has to know it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = (
    "ApiError",
    "Conflict",
    "Forbidden",
    "NotFound",
    "Refused",
    "Throttled",
    "Unreachable",
    "classify",
    "retry_after",
)

_LONGEST_MESSAGE = 1000
_UNDECLARED = ("field not declared in schema", "failed to create typed patch object")
"""How a server-side apply of a field that the schema lacks is told: with status 500, and for ever."""
_OTHER_UID = "metadata.uid: Invalid value"
"""How a server-side apply is told, with status 422, that the object is not the one whose uid it named."""


class ApiError(Exception):
    """`reason` is a stable word for metrics and logs; the message is the server's own."""

    reason = "api_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Unreachable(ApiError):
    """No answer, or none that says anything about the request."""

    reason = "unreachable"


class Throttled(Unreachable):
    """The server is busy and said for how long."""

    reason = "throttled"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotFound(ApiError):
    """Not there."""

    reason = "not_found"


class Conflict(ApiError):
    """Somebody was quicker, or owns what was to be written."""

    reason = "conflict"


class Forbidden(ApiError):
    """Not allowed."""

    reason = "forbidden"


class Refused(ApiError):
    """Invalid."""

    reason = "refused"


def classify(status: int, body: bytes, headers: Mapping[str, str], *, what: str) -> ApiError:
    """The error for an answer that is not 2xx. `what` was asked, as in "apply Service shop/items"."""
    message = f"{what}: {_message(body) or f'HTTP {status}'}"
    if status == 429:  # noqa: PLR2004
        return Throttled(message, retry_after=_seconds(headers.get("Retry-After")))
    known: dict[int, type[ApiError]] = {
        400: Refused,
        401: Forbidden,
        403: Forbidden,
        404: NotFound,
        405: Refused,
        409: Conflict,
        413: Refused,
        415: Refused,
        422: Refused,
    }
    if status == 422 and _OTHER_UID in message:  # noqa: PLR2004
        return Conflict(message)
    if status == 500 and any(mark in message for mark in _UNDECLARED):  # noqa: PLR2004
        return Refused(message)
    return known.get(status, Unreachable)(message)


def retry_after(error: Exception) -> float:
    """Seconds that must pass before what failed is tried again; 0 where the server did not say."""
    return error.retry_after if isinstance(error, Throttled) else 0.0


def _message(body: bytes) -> str:
    """The message of a `Status`; of anything else, which a proxy may have sent, the beginning."""
    with contextlib.suppress(msgspec.DecodeError):
        status: Any = msgspec.json.decode(body)
        if isinstance(status, dict) and isinstance(status.get("message"), str):
            return str(status["message"])[:_LONGEST_MESSAGE]
    return body[:100].decode(errors="replace").strip()


def _seconds(header: str | None) -> float:
    with contextlib.suppress(ValueError):
        return min(300.0, max(0.0, float(header or 1.0)))
    return 1.0
