"""Where a publication goes, and what such a place must be able to do.

An object is whole or absent, and is never written to again. The manifest is replaced only by whoever knows
what it said before: of two publishers at one time one is told that it lost, whatever the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kosine.errors import KosineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

__all__ = ("PublishConflict", "Stored", "Target")


class PublishConflict(KosineError):
    """Another publisher is at work or was faster; nothing that is served has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A file of a target, as it was listed."""

    file: str
    modified: float
    """When it was written, in seconds, by the clock of the place."""
    token: str
    """Changes when it is written again."""


class Target(Protocol):
    """A folder, or a prefix in a bucket. `name` is that of a publication: its manifest is `NAME.json`.

    Every method raises StartupError where the place refuses, and PublishConflict as told.
    """

    def uri(self, file: str) -> str:
        """What a configuration calls `file`."""

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Keep other publishers of `name` out, where the place can; PublishConflict if one is at work."""

    def manifest(self, name: str) -> bytes | None:
        """What the manifest says now; None where there is none."""

    def digest(self, file: str, progress: Callable[[int], None]) -> str | None:
        """SHA-256 (hex) of the object `file`; None where there is none."""

    def size(self, file: str) -> int | None:
        """Bytes of the object `file`; None where there is none."""

    def put(self, file: str, chunks: Iterable[memoryview], *, size: int, name: str) -> None:
        """Make the object of `size` bytes: whole, and durable by the time the manifest is.

        Where `chunks` raise it is not made.
        """

    def commit(self, name: str, content: bytes, *, replacing: bytes | None) -> None:
        """Put the manifest in place; PublishConflict unless it still says `replacing`."""

    def listing(self) -> list[Stored]:
        """Every file directly in the folder or behind the prefix, as it is now."""

    def read(self, stored: Stored) -> bytes:
        """The first 64 KiB, which is all of any manifest; nothing where it is gone."""

    def remove(self, stored: Stored) -> bool:
        """Whether it was removed: it is left alone where it is another one by now."""
