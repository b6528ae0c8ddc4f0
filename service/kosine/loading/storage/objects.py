"""What an object store has to offer: a look, and a range of exactly the object that was looked at.

Deliberately small. Listings go stale, whole-file helpers fetch unpinned pieces, and caches outlive what they
cache; none of them is here, so none of them can be used.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kosine.loading.storage.errors import Kind, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

__all__ = ("ObjectFacts", "ObjectName", "ObjectStore", "check_range", "checked_size")

_MOST_BYTES = 2**63 - 1
_PLAIN = frozenset({"", "identity", "aws-chunked"})
"""Encodings that are none; the last one is of uploads, and some clients store it."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class ObjectName:
    """Where an object is."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFacts:
    """One generation of an object."""

    token: str
    """Changes with every change of the bytes."""
    size: int
    etag: str | None = None
    version: str | None = None
    """Version id or generation, where the store keeps one."""
    modified: float | None = None
    """When it was written, in seconds since 1970, where the store says."""


class ObjectStore(Protocol):
    """One attempt per call, no retries; StoreError says what went wrong. Used on one event loop."""

    async def head(self, name: ObjectName) -> ObjectFacts:
        """Look at the object with one request that carries no content."""

    def get_range(
        self, name: ObjectName, facts: ObjectFacts, *, start: int, stop: int
    ) -> AbstractAsyncContextManager[Callable[[memoryview], Awaitable[int]]]:
        """Bytes [start, stop) of the generation `facts`, else StoreError CHANGED.

        Gives `read_into(buffer)`: how many bytes it wrote, none at the end. A read that is cancelled may go
        on writing for a moment.
        """

    async def close(self) -> None:
        """Close every connection."""


def checked_size(size: int) -> int:
    """StoreError REFUSED unless an object can have so many bytes."""
    if not 0 <= size <= _MOST_BYTES:
        raise StoreError(Kind.REFUSED, f"expected the object's size, got {size}")
    return size


def check_range(status: int, headers: Mapping[str, str], *, start: int, stop: int, size: int) -> None:
    """StoreError unless the answer is exactly the range that was asked for.

    A store that ignores `Range` sends the object from its beginning, and one that compresses sends other
    bytes: taken as they come, that is a torn file.
    """
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    encoding = headers.get("Content-Encoding", "").lower()
    if encoding not in _PLAIN:
        raise StoreError(
            Kind.REFUSED,
            f"expected the object as it is, got Content-Encoding {encoding[:40]!r}; store it without one",
        )
    if status != 206 or found is None:  # noqa: PLR2004  Partial Content
        raise StoreError(
            Kind.REFUSED,
            f"expected a range of the object (206), got status {status}"
            f"{'' if found is not None else ' without a Content-Range'}; the store must support Range",
        )
    first, last, total = map(int, found.groups())
    if total != size:
        raise StoreError(Kind.CHANGED, f"it has {total} bytes instead of {size}")
    if (first, last) != (start, stop - 1):
        raise StoreError(Kind.REFUSED, f"expected bytes {start}-{stop - 1}, the store sent {first}-{last}")
