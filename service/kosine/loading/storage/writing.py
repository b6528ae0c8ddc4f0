"""What a store offers to a publisher, and to nobody else: the service holds stores that cannot write.

Every write says what it replaces, so the store itself keeps publishers apart; an object that is sent in parts
is there whole or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kosine.loading.storage.objects import ObjectStore

if TYPE_CHECKING:
    from kosine.loading.storage.objects import ObjectFacts, ObjectName

__all__ = ("Listed", "Upload", "WritableStore")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An object of a listing."""

    name: ObjectName
    token: str
    """ETag or generation."""
    modified: float
    """Seconds since the epoch by the store's clock; whole ones in some stores."""


class Upload(Protocol):
    """An object on its way: parts in order, and it is not there until all are. One attempt per call."""

    async def send(self, part: memoryview) -> None:
        """The next part; after StoreError TRANSIENT the same one again. CHANGED if the object is there."""

    async def complete(self) -> None:
        """Make the object of its parts at one moment; StoreError CHANGED if there is one already."""

    async def abort(self) -> None:
        """Forget the parts."""


class WritableStore(ObjectStore, Protocol):
    """See `ObjectStore`."""

    part_bytes: int
    """Of each part of an upload but the last."""

    async def put(self, name: ObjectName, content: memoryview, *, replacing: ObjectFacts | None) -> None:
        """Write the object in one request; StoreError CHANGED unless it is `replacing` (None: absent)."""

    async def begin_upload(self, name: ObjectName, *, size: int) -> Upload:
        """Begin an object of `size` bytes that is not there yet."""

    async def remove(self, name: ObjectName, token: str) -> None:
        """Delete what was listed so; StoreError CHANGED or MISSING where it is not there any more."""

    async def listing(self, bucket: str, prefix: str) -> list[Listed]:
        """The objects whose keys are `prefix` and no slash behind it; as they are now."""
