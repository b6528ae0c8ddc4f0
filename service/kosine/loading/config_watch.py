"""Follows the configuration file and applies it live.

A file that is not valid as a whole is refused as a whole: the configuration in force stays, the log and the
metrics say why. The file is found changed by its folder's watch or by the poll, must rest before it is read,
and must be the same after it was read.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import structlog

from kosine.configuration import settings_hash
from kosine.errors import ConfigurationError, LoadError
from kosine.loading.local import LocalStorage
from kosine.loading.refresh_policy import Seen, see, unsettled_until
from kosine.loading.threads import Overdue
from kosine.serving.status import ConfigurationRefusal, ConfigurationStatus
from kosine.source_uri import UriPolicy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kosine.loading.catalog import Catalog
    from kosine.loading.source import Fingerprint
    from kosine.loading.threads import LoaderThreads
    from kosine.loading.watcher import Watcher
    from kosine.metrics import Metrics
    from kosine.settings import Settings

__all__ = ("ConfigWatch",)

_NAME = "configuration"
_WITHIN = 30.0


class ConfigWatch:
    """One task. `load` reads the file again and raises ConfigurationError; it is called in a thread."""

    def __init__(
        self,
        path: Path,
        *,
        load: Callable[[], Settings],
        catalog: Catalog,
        watcher: Watcher,
        threads: LoaderThreads,
        metrics: Metrics,
        interval: float = 5.0,
        settle: float = 0.25,
    ) -> None:
        self._path = str(path)
        self._file = path
        self._load = load
        self._catalog = catalog
        self._watcher = watcher
        self._threads = threads
        self._metrics = metrics
        self._interval = interval
        self._settle = settle
        self._storage = LocalStorage(UriPolicy(file_roots=(self._path,)))
        self._loop = asyncio.get_running_loop()
        self._log = structlog.get_logger(__name__)
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self._seen: Seen | None = None
        self._judged: str | None = None
        """Fingerprint of the file that was applied or refused last; None while none can be read."""
        self._in_force = ""
        self._trouble: str | None = None
        self._status = ConfigurationStatus()

    def status(self) -> ConfigurationStatus:
        """What is in force now; nothing until the file has been read by this watch."""
        return self._status

    def start(self) -> None:
        """Begin by reading the file once more: it may have changed since the process read it."""
        self._unsubscribe = self._watcher.subscribe([self._path], self._wake.set)
        self._task = self._loop.create_task(self._run(), name="config-watch")

    async def close(self, *, grace: float = 5.0) -> None:
        """Stop following."""
        self._closing = True
        self._wake.set()
        self._unsubscribe()
        if self._task is not None:
            _, pending = await asyncio.wait({self._task}, timeout=grace)
            for task in pending:
                task.cancel()

    async def _run(self) -> None:
        while not self._closing:
            self._wake.clear()
            try:
                until = await self._turn()
            except (LoadError, Overdue) as error:
                until = self._cannot_look(error)
            except Exception:  # noqa: BLE001  whatever it was, the next configuration must be seen
                self._log.exception("config_defect")
                until = self._refuse("a defect of kosine; the log has the traceback")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._wake.wait()

    async def _turn(self) -> float:
        """One look and what follows from it; returns when to look again."""
        began = self._loop.time()
        found = await self._look()
        self._trouble = None
        now = self._loop.time()
        self._seen = see(self._seen, found, began=began, ended=now)
        if found.token == self._judged:
            self._seen = replace(self._seen, rested=True)
            return now + self._interval
        ready = unsettled_until(self._seen, now=now, settle=self._settle)
        return ready if ready is not None else await self._read(found)

    async def _look(self) -> Fingerprint:
        look = partial(self._storage.fingerprint, self._path)
        return await self._threads.run(look, name=_NAME, within=_WITHIN)

    async def _read(self, found: Fingerprint) -> float:
        content, read = await self._threads.run(self._judge, name=_NAME, within=_WITHIN)
        if await self._look() != found:
            return self._loop.time()
        self._judged = found.token
        if isinstance(read, ConfigurationError):
            return self._refuse(read.detail, content=content)
        changes = await self._catalog.apply(read)
        self._status = ConfigurationStatus(
            hash=content, applied_at=datetime.now(UTC), restart_needed=changes.restart_needed
        )
        self._in_force = settings_hash(read)
        self._metrics.config_applied(ok=True, hash=self._in_force)
        told = {name: names for name, names in asdict(changes).items() if names}
        (self._log.info if told else self._log.debug)("config_applied", hash=self._in_force, **told)
        return self._loop.time()

    def _judge(self) -> tuple[str | None, Settings | ConfigurationError]:
        """Hash of the file and what is in it; both are of one file, if it is the same afterwards."""
        content: str | None = None
        with contextlib.suppress(OSError):
            content = hashlib.sha256(self._file.read_bytes()).hexdigest()
        try:
            return content, self._load()
        except ConfigurationError as error:
            return content, error

    def _refuse(self, detail: str, *, content: str | None = None) -> float:
        refusal = ConfigurationRefusal(hash=content, detail=detail, at=datetime.now(UTC))
        self._status = replace(self._status, refused=refusal)
        self._metrics.config_applied(ok=False, hash=self._in_force)
        self._log.error("config_refused", detail=detail)
        return self._loop.time() + self._interval

    def _cannot_look(self, error: LoadError | Overdue) -> float:
        """The configuration in force stays while its file is gone; logged once."""
        self._judged = self._seen = None
        detail = error.detail if isinstance(error, LoadError) else "the file system does not answer"
        if detail != self._trouble:
            self._trouble = detail
            return self._refuse(detail)
        return self._loop.time() + self._interval
