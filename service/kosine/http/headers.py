"""What the head of a request says that matters here: its id, its length, its deadline, what it insists on."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from kosine.errors import BodyTooLarge, InvalidValue, UnsupportedMediaType, VersionMismatch
from kosine.http.problems import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("RequestIds", "check_body_head", "check_version", "is_lenient", "requested_timeout", "too_large")

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_LENIENT = re.compile(r'handling\s*=\s*"?lenient"?')
_LONGEST_NUMBER = 12
"""Digits of a number of milliseconds beyond which it is capped without being read."""


class RequestIds:
    """Ids for requests that brought none; a random start and a count are as unique as a UUID, and cheaper."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(6)
        self._count = 0

    def of(self, headers: Mapping[bytes, bytes]) -> str:
        """The caller's X-Request-Id where it is harmless, else a new id."""
        sent = headers.get(b"x-request-id")
        if sent is not None and _SANE_ID.fullmatch(sent):
            return sent.decode("ascii")
        return self.new()

    def new(self) -> str:
        """An id nobody else has."""
        self._count += 1
        return f"{self._prefix}-{self._count:x}"


def check_body_head(headers: Mapping[bytes, bytes], *, limit: int) -> None:
    """Refuse by its head a body that would not be read, encoded (UnsupportedMediaType) or BodyTooLarge."""
    if b"content-encoding" in headers:
        _check_encoding(headers[b"content-encoding"])
    length = headers.get(b"content-length")
    if length is not None and length.isdigit() and (len(length) > _LONGEST_NUMBER or int(length) > limit):
        raise too_large(limit)


def too_large(limit: int) -> BodyTooLarge:
    """The refusal of a body beyond `limit` bytes."""
    return BodyTooLarge(f"the body is longer than {limit} bytes (service.body_limit)", limit=limit)


def _check_encoding(sent: bytes) -> None:
    if sent.strip().lower() not in {b"", b"identity"}:
        raise UnsupportedMediaType(
            f"expected no Content-Encoding, got {printable(sent.decode('latin-1'))}; send the body plain"
        )


def check_version(headers: Mapping[bytes, bytes], version: str) -> None:
    """Refuse where `version` is not the one that Kosine-Expect-Version names. Raises VersionMismatch."""
    expected = headers.get(b"kosine-expect-version")
    if expected is not None and expected != version.encode("ascii"):
        shown = printable(expected.decode("latin-1"))
        raise VersionMismatch(
            f"expected version {shown}, but {version} answers now; ask without Kosine-Expect-Version, or "
            "begin again with this version",
            expected=shown,
            version=version,
        )


def is_lenient(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the caller sent `Prefer: handling=lenient` (RFC 7240)."""
    sent = headers.get(b"prefer")
    if sent is None:
        return False
    preferences = (part.partition(";")[0] for part in sent.decode("latin-1").lower().split(","))
    return any(_LENIENT.fullmatch(each.strip()) for each in preferences)


def requested_timeout(sent: bytes, *, longest: float) -> float:
    """Seconds of an X-Request-Timeout-Ms header, at most `longest`. Raises InvalidValue."""
    if not sent.isdigit() or not sent.strip(b"0"):
        raise InvalidValue(
            f"expected X-Request-Timeout-Ms to be a whole number of milliseconds from 1, "
            f"got {printable(sent.decode('latin-1'))}",
            header="X-Request-Timeout-Ms",
        )
    if len(sent) > _LONGEST_NUMBER:
        return longest
    return min(int(sent) / 1000, longest)
