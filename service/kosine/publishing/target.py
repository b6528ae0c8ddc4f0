"""Where a publication goes, and what such a place must be able to do.

An object is whole or absent, and is never written to again. The manifest is replaced only by whoever knows
what it said before: of two publishers at one time one is told that it lost, whatever the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from kosine.errors import KosineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

__all__ = ("PublishConflict", "Target")


class PublishConflict(KosineError):
    """Another publisher is at work or was faster; nothing that is served has changed."""


class Target(Protocol):
    """A folder, or a prefix in a bucket. `name` is that of a publication: its manifest is `NAME.json`.

    Every method raises StartupError where the place refuses, and PublishConflict as told.
    """

    can_prune: bool

    def uri(self, file: str) -> str:
        """What a configuration calls `file`."""

    def exclusive(self, name: str) -> AbstractContextManager[None]:
        """Keep other publishers of `name` out, where the place can; PublishConflict if one is at work."""

    def manifest(self, name: str) -> bytes | None:
        """What the manifest says now; None where there is none."""

    def digest(self, file: str, progress: Callable[[int], None]) -> str | None:
        """SHA-256 (hex) of the object `file`; None where there is none."""

    def put(self, file: str, chunks: Iterable[memoryview], *, name: str) -> None:
        """Make the object: whole, and durable by the time the manifest is; or, where chunks raise, absent."""

    def commit(self, name: str, content: bytes, *, replacing: bytes | None) -> None:
        """Put the manifest in place; PublishConflict unless it still says `replacing`."""

    def prune(self, name: str, *, keep: int) -> list[str]:
        """Remove what no manifest there names, but for `keep` vectors and ids; returns what is gone.

        Those that `name` names now come first, then the newest.
        """
