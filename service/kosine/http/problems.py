"""Every refusal in one shape: `application/problem+json` (RFC 9457) with a stable `code`.

Guarantee: whatever went wrong, a caller sees a `RequestError` and the id under which the log has the rest;
never a traceback, a path of the host or the text of a foreign exception.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from kosine.errors import InternalError, RequestError

__all__ = (
    "CLOSE",
    "Problem",
    "Reply",
    "as_refusal",
    "printable",
    "problem_reply",
)

CLOSE = (b"connection", b"close")
"""The one `Connection` that an answer of ours may carry."""

_PROBLEM_JSON = (b"content-type", b"application/problem+json")
_SHOWN = 80


class Problem(msgspec.Struct):
    """The members every refusal has; the facts of its code come on top."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


class Reply(NamedTuple):
    """An answer before any server or framework has seen it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def printable(text: str, *, limit: int = _SHOWN) -> str:
    r"""What a client sent, made safe to repeat: one line, ASCII, capped.

    >>> printable("a\r\nb"), printable("x" * 9, limit=4)
    ('a\\r\\nb', 'xxxx...')
    """
    shown = text[:limit].encode("unicode_escape").decode("ascii")
    return shown if len(text) <= limit else f"{shown}..."


def as_refusal(error: Exception) -> RequestError:
    """The error itself where it was meant for the caller; anything else is a defect of ours."""
    if isinstance(error, RequestError):
        return error
    return InternalError("the service made a mistake; its log has the details under this request_id")


def problem_reply(error: RequestError, *, request_id: str, close: bool = False) -> Reply:
    """The answer that tells a caller about `error`; `close` where the connection cannot be used again."""
    body: dict[str, Any] = {
        **error.facts,
        "type": f"urn:kosine:error:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id,
    }
    encoded = msgspec.json.encode(body)
    headers = [
        _PROBLEM_JSON,
        (b"content-length", b"%d" % len(encoded)),
        (b"x-request-id", request_id.encode("ascii")),
    ]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    if close:
        headers.append(CLOSE)
    return Reply(error.status, headers, encoded)
