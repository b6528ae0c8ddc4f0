"""The seam between loading and a store: a fingerprint, and reads pinned to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

__all__ = ("Fingerprint", "Reader", "Storage", "read_whole")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What the store says identifies the bytes now. Equal tokens: nothing to do."""

    token: str
    size: int
    resolution: float = 0.0
    """Seconds within which two changes may share a token; only a token older than that is safe to read by."""
    modified: float | None = field(default=None, compare=False)
    """When the bytes were written, in seconds since 1970, where the store says."""


class Reader(Protocol):
    """One object, pinned to the fingerprint it was opened with. Thread-safe: reads carry their offset."""

    size: int
    buffer_bytes: int
    """Most memory it takes beside the buffers it is given."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole buffer from `offset`; LoadError `changed_while_reading` past the object's end."""

    def lend(self, offset: int, size: int) -> memoryview | None:
        """What `read_into` would copy, in memory of the reader, good until the next but one is lent.

        None where it has to be copied.
        """

    def verify(self) -> None:
        """LoadError `changed_while_reading` unless the object is still the one that was opened."""


class Storage(Protocol):
    """A store that sources live in. Every call blocks; callers are loader threads."""

    def using(self, credentials: str | None) -> Storage:
        """The same store, read with the credentials of that name; None: with those of the process."""

    def fingerprint(self, uri: str) -> Fingerprint:
        """Look, without reading. LoadError at FINGERPRINT: `source_missing`, `source_forbidden`, ..."""

    def open(self, uri: str, fingerprint: Fingerprint) -> AbstractContextManager[Reader]:
        """Open what the fingerprint was taken of; LoadError `changed_while_reading` if it is another."""


def read_whole(storage: Storage, uri: str, fingerprint: Fingerprint) -> bytes:
    """All bytes of a small object, verified; the caller has bounded its size. LoadError as the storage's."""
    content = bytearray(fingerprint.size)
    with storage.open(uri, fingerprint) as reader:
        reader.read_into(0, memoryview(content))
        reader.verify()
    return bytes(content)
