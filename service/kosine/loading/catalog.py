"""The configured indexes: one reloader each, and what a new configuration changes about them.

`plan` compares two configurations; `Catalog.apply` makes it so without touching what did not change. Settings
that need no new version are applied to the one that serves; the others load a new one beside it, and until
that is published the old version serves under the old settings.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import structlog

from kosine.errors import UnknownIndex
from kosine.loading.copies import keeps_copies
from kosine.loading.reloader import Reloader
from kosine.loading.reloader_parts import ReloaderParts
from kosine.loading.threads import Overdue
from kosine.serving.version import open_version
from kosine.settings import IndexSettings, Settings
from kosine.source_uri import local_path

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from kosine.loading.copies import Copies
    from kosine.loading.orders import Command
    from kosine.loading.pipeline import LoadedIndex
    from kosine.loading.reloader_parts import Loader
    from kosine.loading.threads import LoaderThreads
    from kosine.loading.watcher import Watcher
    from kosine.metrics import Metrics
    from kosine.serving.dispatcher import Dispatcher
    from kosine.serving.registry import Registry
    from kosine.serving.status import ReloadOutcome
    from kosine.serving.version import Version
    from kosine.settings import ServiceSettings

__all__ = ("HOT", "Catalog", "Changes", "plan")

HOT = frozenset(
    {"k", "masks", "max_query_rows", "timeout", "policy", "required"}
    | {"history", "refresh", "guard", "canary", "batch"}
)
"""Settings of an index that the version being served can take. Of `batch` all but `max_rows`: its engine was
admitted and warmed up for that. Masks are loaded for it by themselves."""


_COPIES_WITHIN = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What another configuration means for the running service; index names, sorted."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    hot: tuple[str, ...] = ()
    reload: tuple[str, ...] = ()
    restart_needed: tuple[str, ...] = ()
    """Settings of `service` that differ: ignored until the process is restarted."""


def plan(old: Settings, new: Settings) -> Changes:
    """What to do to get from `old` to `new`."""
    both = sorted(old.indexes.keys() & new.indexes.keys())
    changed = [name for name in both if old.indexes[name] != new.indexes[name]]
    reload = tuple(name for name in changed if _needs_version(old.indexes[name], new.indexes[name]))
    return Changes(
        added=tuple(sorted(new.indexes.keys() - old.indexes.keys())),
        removed=tuple(sorted(old.indexes.keys() - new.indexes.keys())),
        hot=tuple(name for name in changed if name not in reload),
        reload=reload,
        restart_needed=tuple(sorted(_differing(old.service, new.service))),
    )


def _needs_version(old: IndexSettings, new: IndexSettings) -> bool:
    return bool(_differing(old, new) - HOT) or old.batch.max_rows != new.batch.max_rows


def _differing(old: IndexSettings | ServiceSettings, new: IndexSettings | ServiceSettings) -> set[str]:
    return {
        field.name
        for field in msgspec.structs.fields(old)
        if getattr(old, field.name) != getattr(new, field.name)
    }


class Catalog:
    """Create and use it on the event loop. Implements the http room's `Reloads`."""

    def __init__(
        self,
        *,
        service: ServiceSettings,
        registry: Registry,
        loader: Loader,
        threads: LoaderThreads,
        dispatcher: Dispatcher,
        metrics: Metrics,
        watcher: Watcher,
        rng: random.Random,
        copies: Copies | None = None,
    ) -> None:
        def opened(loaded: LoadedIndex, settings: IndexSettings) -> Version:
            return open_version(
                info=loaded.info,
                settings=settings,
                engine=loaded.engine,
                ids=loaded.ids,
                masks=loaded.masks,
                dispatcher=dispatcher,
                metrics=metrics,
            )

        self._parts = ReloaderParts(
            registry=registry,
            loader=loader,
            threads=threads,
            open_version=opened,
            metrics=metrics,
            rng=rng,
            copies=copies,
        )
        self._registry = registry
        self._metrics = metrics
        self._watcher = watcher
        self._threads = threads
        self._copies = copies
        self._settings = Settings(service=service)
        self._reloaders: dict[str, Reloader] = {}
        self._watched: dict[str, Callable[[], None]] = {}
        self._applying = asyncio.Lock()
        self._log = structlog.get_logger(__name__)

    def default_index(self) -> str | None:
        """Where `POST /cos` goes."""
        return self._settings.default_index

    async def force(self, name: str) -> ReloadOutcome:
        """Read the source of `name` again and tell how it ended.

        The same content answers `unchanged`, whatever happened to the file. Raises UnknownIndex, IndexPinned
        or ShuttingDown.
        """
        return await self._reloader(name).force()

    async def order(self, name: str, command: Command, version: str | None = None) -> ReloadOutcome:
        """Go back to a version of `name`, hold one, or follow the source again: see `Reloader.order`.

        Raises UnknownIndex, UnknownVersion, VersionGone, ReloadFailed or ShuttingDown.
        """
        return await self._reloader(name).order(command, version)

    def _reloader(self, name: str) -> Reloader:
        reloader = self._reloaders.get(name)
        if reloader is None:
            raise UnknownIndex("no index of that name is configured; GET /indexes lists those that are")
        return reloader

    async def apply(self, settings: Settings) -> Changes:
        """Make `settings` the configuration in force; returns once removed indexes are freed."""
        async with self._applying:
            changes = plan(self._settings, settings)
            # The process keeps the service section it was started with.
            self._settings = msgspec.structs.replace(settings, service=self._settings.service)
            for name in changes.added:
                self._add(name, settings.indexes[name])
            for name in (*changes.hot, *changes.reload):
                self._change(name, settings.indexes[name], reload=name in changes.reload)
            await asyncio.gather(*(self._remove(name) for name in changes.removed))
            await self._remove_copies()
        if changes.restart_needed:
            self._log.warning("config_needs_restart", settings=changes.restart_needed)
        return changes

    def _add(self, name: str, settings: IndexSettings) -> None:
        self._registry.declare(name, source=settings.uri, required=settings.required)
        reloader = self._reloaders[name] = Reloader(name, settings, parts=self._parts)
        self._watch(name, settings)
        reloader.start()

    def _change(self, name: str, settings: IndexSettings, *, reload: bool) -> None:
        self._registry.declare(name, source=settings.uri, required=settings.required)
        self._watch(name, settings)
        self._reloaders[name].configure(settings, reload=reload)

    async def _remove(self, name: str) -> None:
        self._unwatch(name)
        await self._reloaders.pop(name).close()
        await self._registry.remove(name)
        self._metrics.forget(name)

    async def _remove_copies(self) -> None:
        """Of indexes that are to have none, or are not configured; their loads have ended."""
        if self._copies is None:
            return
        wanted = frozenset(name for name, index in self._settings.indexes.items() if keeps_copies(index))
        try:
            await self._threads.run(
                partial(self._copies.keep_only, wanted), name="copies", within=_COPIES_WITHIN
            )
        except Overdue:
            self._log.warning("copy_not_removed", reason=f"the disk takes longer than {_COPIES_WITHIN:g} s")

    def _watch(self, name: str, settings: IndexSettings) -> None:
        self._unwatch(name)
        if not settings.refresh.watch:
            return
        named = (settings.uri, settings.ids, *settings.masks.values())
        uris = [uri for uri in named if uri is not None]
        paths = [path for path in map(local_path, uris) if path is not None]
        if paths:
            self._watched[name] = self._watcher.subscribe(paths, self._reloaders[name].hint)

    def _unwatch(self, name: str) -> None:
        unsubscribe = self._watched.pop(name, None)
        if unsubscribe is not None:
            unsubscribe()

    async def close(self, *, grace: float = 5.0) -> None:
        """Stop following every source; versions serve on until the registry is closed."""
        for name in tuple(self._watched):
            self._unwatch(name)
        await asyncio.gather(*(reloader.close(grace=grace) for reloader in self._reloaders.values()))
        if self._copies is not None:
            self._copies.close()
