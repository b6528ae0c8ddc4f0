"""Hints that something happened near a local file; the only module that imports watchfiles.

It watches folders, never files: a watched file that is replaced is a dead watch. For each path that is the
folder it is written in and the folder it resolves to, so that a rename and a flipped symlink (`..data` of a
ConfigMap) are both seen. A hint only says "look again"; whoever needs certainty polls besides, because
inotify sees nothing of other hosts and a system may have no watches left.

One thread does all of it. Every `recheck` seconds it compares the folders with what it armed: one that was
removed, recreated or mounted over, or a symlink that leads elsewhere now, is armed again and hinted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from watchfiles import watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

__all__ = ("Watcher",)

_STEP_MS = 50
_DEBOUNCE_MS = 200


@dataclass(frozen=True, slots=True, eq=False)
class _Subscription:
    paths: tuple[Path, ...]
    hint: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder to watch, what it was when it was looked at, and who wants to hear of it."""

    path: str
    identity: tuple[int, int] | None
    """Device and inode; None where there is no such folder."""
    subscriptions: frozenset[_Subscription]


class Watcher:
    """Create, subscribe and close on the event loop; hints are called there too."""

    def __init__(self, *, recheck: float = 2.0) -> None:
        self._loop = asyncio.get_running_loop()
        self._log = structlog.get_logger(__name__)
        self._recheck = recheck
        self._subscriptions: tuple[_Subscription, ...] = ()
        self._changed = threading.Event()
        self._closing = False
        self._complained = False
        self._ended: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._work, name="kosine-watcher", daemon=True).start()

    def subscribe(self, paths: Iterable[str], hint: Callable[[], None]) -> Callable[[], None]:
        """Call `hint` when something happens in a folder of `paths`; returns what ends it."""
        subscription = _Subscription(tuple(map(Path, paths)), hint)
        self._subscriptions = (*self._subscriptions, subscription)
        self._changed.set()

        def unsubscribe() -> None:
            self._subscriptions = tuple(one for one in self._subscriptions if one is not subscription)
            self._changed.set()

        return unsubscribe

    async def close(self, *, grace: float = 5.0) -> None:
        """Stop; a thread that hangs in a dead file system is left behind after `grace` seconds."""
        self._closing = True
        self._changed.set()
        await asyncio.wait({self._ended}, timeout=grace)

    def _work(self) -> None:
        armed: frozenset[_Folder] = frozenset()
        while not self._closing:
            self._changed.clear()
            before, armed = armed, _survey(self._subscriptions)
            self._follow(armed, fresh=armed - before)
        self._tell(partial(self._ended.set_result, None))

    def _follow(self, folders: frozenset[_Folder], *, fresh: frozenset[_Folder]) -> None:
        """Watch `folders` until any of them, or who wants to hear of them, is another."""
        self._hint(fresh)
        there = {folder.path: folder for folder in folders if folder.identity is not None}
        if not there:
            self._changed.wait(self._recheck)
            return
        try:
            with contextlib.closing(self._events(there)) as events:
                for paths in events:
                    self._complained = False
                    # What happened between the survey and the arming of the watch is made up for here.
                    self._hint(fresh | {folder for path, folder in there.items() if path in paths})
                    fresh = frozenset()
                    if _survey(self._subscriptions) != folders:
                        return
        except (OSError, RuntimeError) as error:  # watchfiles' own error is a RuntimeError
            self._complain(error)
            self._changed.wait(self._recheck)

    def _events(self, there: dict[str, _Folder]) -> Any:
        """Folders in which something happened; an empty set every `recheck` seconds without."""
        changes = watch(
            *there,
            watch_filter=None,
            debounce=_DEBOUNCE_MS,
            step=_STEP_MS,
            stop_event=self._changed,
            rust_timeout=int(self._recheck * 1000),
            yield_on_timeout=True,
            raise_interrupt=False,
            recursive=False,
            ignore_permission_denied=True,
        )
        for happened in changes:
            yield {place for _, path in happened for place in (path, str(Path(path).parent))}

    def _hint(self, folders: Iterable[_Folder]) -> None:
        for subscription in {one for folder in folders for one in folder.subscriptions}:
            self._tell(subscription.hint)

    def _tell(self, callback: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop was closed without closing this
            self._closing = True

    def _complain(self, error: Exception) -> None:
        """Once until it works again: no watches left, or a folder that went between survey and arming."""
        if not self._complained:
            self._complained = True
            self._log.warning("watch_unavailable", detail=f"changes are found by polling only: {error}")


def _survey(subscriptions: tuple[_Subscription, ...]) -> frozenset[_Folder]:
    wanted: dict[Path, set[_Subscription]] = {}
    for subscription in subscriptions:
        for path in subscription.paths:
            for place in (path.absolute(), Path(os.path.realpath(path))):
                wanted.setdefault(place.parent, set()).add(subscription)
    return frozenset(_Folder(str(path), _identity(path), frozenset(who)) for path, who in wanted.items())


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino
