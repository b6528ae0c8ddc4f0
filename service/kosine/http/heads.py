"""Which request heads are refused before anything starts to answer them. Pure.

A head that two parsers could read differently is how requests are smuggled past a proxy; a large one is
memory that was spent before its sender was asked anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kosine.errors import BadRequest, HeadTooLarge

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("MAX_HEADERS", "MAX_HEAD_BYTES", "check_count", "check_size", "is_chunked")

MAX_HEAD_BYTES = 32 * 1024
MAX_HEADERS = 100

_AROUND = len(": \r\n")


def is_chunked(headers: Sequence[tuple[bytes, bytes]], *, version: str) -> bool:
    """Whether the body is chunked. Raises BadRequest where framing or Host are not clear.

    The parser has refused by now: Content-Length twice, beside Transfer-Encoding, or not a number.
    """
    hosts, chunked = 0, False
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding":
            chunked = True
            if value.lower() != b"chunked" or version != "1.1":
                raise BadRequest("expected no Transfer-Encoding but chunked, and that in HTTP/1.1")
    if hosts != 1 and (hosts or version != "1.0"):
        raise BadRequest(f"expected one Host header, got {hosts}")
    return chunked


def check_count(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Raises HeadTooLarge past MAX_HEADERS."""
    if len(headers) > MAX_HEADERS:
        raise HeadTooLarge(f"expected at most {MAX_HEADERS} headers", limit=MAX_HEADERS)


def check_size(target: bytes, headers: Sequence[tuple[bytes, bytes]] = (), *, more: int = 0) -> None:
    """Raises HeadTooLarge when target, headers and `more` bytes exceed MAX_HEAD_BYTES."""
    size = len(target) + more + sum(len(name) + len(value) + _AROUND for name, value in headers)
    if size > MAX_HEAD_BYTES:
        raise HeadTooLarge(f"expected a head of at most {MAX_HEAD_BYTES} bytes", limit=MAX_HEAD_BYTES)
