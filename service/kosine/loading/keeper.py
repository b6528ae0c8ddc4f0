"""What one index served and what it is held at: kept up to date, told, and remembered beside its copies.

The reloader loads and tells what happened; what that means is decided in `history`. Where there are copies a
restart finds all of it again; else it lasts as long as the process.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog
from msgspec import structs

from kosine.loading.copies import keeps_copies
from kosine.loading.history import History, check_decoding, choose, confirmed, entry_of, kept, serves
from kosine.loading.threads import Overdue
from kosine.loading.version_files import files_of, mask_role
from kosine.serving.status import Pin

if TYPE_CHECKING:
    from collections.abc import Callable

    from kosine.loading.copies import Copies
    from kosine.loading.history import Served
    from kosine.loading.job import Sources
    from kosine.loading.pipeline import LoadedIndex
    from kosine.loading.reporting import Reporter
    from kosine.loading.threads import LoaderThreads
    from kosine.serving.masks import Masks
    from kosine.serving.status import Cause
    from kosine.settings import IndexSettings

__all__ = ("Keeper",)

T = TypeVar("T")


class Keeper:
    """Use it on the event loop, in the turns of the reloader."""

    def __init__(
        self, name: str, *, copies: Copies | None, threads: LoaderThreads, reporter: Reporter
    ) -> None:
        self._name = name
        self._copies = copies
        self._threads = threads
        self._reporter = reporter
        self._history = History()
        self._recalled = copies is None
        self._log = structlog.get_logger(__name__).bind(index=name)

    @property
    def pinned(self) -> Served | None:
        """The version that the index is held at."""
        return self._history.pinned

    async def recall(self, settings: IndexSettings) -> None:
        """Know what the last process remembered, and no more than is to be."""
        if not self._recalled and self._copies is not None and keeps_copies(settings):
            self._recalled = True
            found = await self.on_disk(partial(self._copies.history, self._name), settings)
            if found is not None and not self._history.versions:
                self._tell(found)
        bounded = kept(self._history, keep=settings.history)
        if bounded != self._history:
            self._tell(bounded)
            await self.remember(settings)

    async def remember(self, settings: IndexSettings) -> None:
        """For the next process."""
        if self._copies is not None and keeps_copies(settings):
            await self.on_disk(partial(self._copies.remember, self._name, self._history), settings)

    def published(self, loaded: LoadedIndex, settings: IndexSettings, *, cause: Cause) -> None:
        """This version serves from now on."""
        entry = entry_of(loaded.info, settings, loaded.files, cause=cause)
        self._tell(serves(self._history, entry, keep=settings.history))

    def confirmed(self, settings: IndexSettings, sources: Sources, masks: Masks) -> None:
        """The version that serves is in these files now, with these masks."""
        if not self._history.versions:
            return
        before = self._history.versions[0].files.sha256
        items = {role: digest for role, digest in before.items() if role in {"vectors", "ids"}}
        sha256 = items | {mask_role(name): digest for name, digest in masks.digests.items()}
        files = files_of(settings, sources, sha256)
        self._tell(confirmed(self._history, fingerprint=sources.combined.token, files=files))

    def target(self, asked: str | None, settings: IndexSettings, *, stay: bool) -> Served:
        """The version to hold, or to go back to; `stay`: without a name the one that serves.

        Raises UnknownVersion or VersionGone.
        """
        versions = self._history.versions
        serving = versions[0].version if versions else None
        entry = choose(self._history, serving if stay and asked is None else asked, keep=settings.history)
        check_decoding(entry, settings, serving=serving)
        return entry

    async def hold(self, entry: Served, settings: IndexSettings) -> None:
        """Whatever the source holds, `entry`, which serves, is served on."""
        self._tell(structs.replace(self._history, pin=Pin(version=entry.version, at=datetime.now(UTC))))
        self._log.info("index_pinned", version=entry.version)
        await self.remember(settings)

    async def let_go(self, settings: IndexSettings) -> None:
        """Follow the source again."""
        if self._history.pin is not None:
            self._log.info("index_unpinned", version=self._history.pin.version)
            self._tell(structs.replace(self._history, pin=None))
            await self.remember(settings)

    async def on_disk(self, call: Callable[[], T], settings: IndexSettings) -> T | None:
        """What `call` returns; None where the disk of the copies hangs."""
        try:
            return await self._threads.run(call, name=self._name, within=settings.refresh.timeout)
        except Overdue:
            self._log.warning("copy_failed", reason="the disk takes longer than refresh.timeout")
            return None

    def _tell(self, history: History) -> None:
        self._history = history
        self._reporter.kept(tuple(each.told() for each in history.versions), history.pin)
