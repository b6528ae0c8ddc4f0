"""One loaded state of an index, immutable but for its masks, and the leases that keep it alive.

Whoever answers a request holds a lease, so a version is freed only after its last answer, and a request sees
one version from its first check to its last byte.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec import structs

from kosine.serving.batcher import Batcher

if TYPE_CHECKING:
    from types import TracebackType

    from kosine.engines.engine import Engine
    from kosine.metrics import Metrics
    from kosine.serving.dispatcher import Dispatcher
    from kosine.serving.item_ids import ItemIds
    from kosine.serving.masks import Masks
    from kosine.serving.status import VersionInfo
    from kosine.settings import IndexSettings

__all__ = ("Lease", "Version", "open_version")


class Version:
    """What a name points to. While it serves, `settings` (k, timeout, batch) and `masks` may be replaced."""

    def __init__(
        self,
        *,
        info: VersionInfo,
        settings: IndexSettings,
        batcher: Batcher,
        ids: ItemIds,
        masks: Masks,
    ) -> None:
        self.info = info
        self.ids = ids
        self.masks = masks
        self.settings = settings
        self.batcher = batcher
        self._leases = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def leases(self) -> int:
        """Requests that are being answered from this version."""
        return self._leases

    def configure(self, settings: IndexSettings) -> None:
        """Apply settings that need no reload: k, timeout, batch. The engine was built for its `max_k`."""
        self.settings = structs.replace(settings, max_k=self.settings.max_k)
        self.batcher.configure(settings.batch)

    def lease(self) -> Lease:
        """Pin this version for the time of a `with` block."""
        return Lease(self)

    def _acquire(self) -> None:
        self._leases += 1
        self._idle.clear()

    def _release(self) -> None:
        self._leases -= 1
        if not self._leases:
            self._idle.set()

    async def retire(self) -> None:
        """Answer everyone who holds a lease, then free the matrix."""
        self.batcher.drain()
        await self._idle.wait()
        engine = self.batcher.close()
        if engine is not None:
            await asyncio.to_thread(engine.close)

    def abort(self) -> None:
        """Answer everyone at once with ShuttingDown; the process is about to end."""
        self.batcher.close()


class Lease:
    """Context manager over a version; as cheap as a reference count."""

    __slots__ = ("_version",)

    def __init__(self, version: Version) -> None:
        self._version = version

    def __enter__(self) -> Version:
        self._version._acquire()  # noqa: SLF001  the other half of the version
        return self._version

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._version._release()  # noqa: SLF001


def open_version(
    *,
    info: VersionInfo,
    settings: IndexSettings,
    engine: Engine,
    ids: ItemIds,
    masks: Masks,
    dispatcher: Dispatcher,
    metrics: Metrics,
) -> Version:
    """Give a warmed-up engine its queue."""
    batcher = Batcher(
        engine=engine, ids=ids, settings=settings.batch, dispatcher=dispatcher, metrics=metrics.of(info.name)
    )
    return Version(info=info, settings=settings, batcher=batcher, ids=ids, masks=masks)
