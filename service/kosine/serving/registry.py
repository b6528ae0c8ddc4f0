"""Name -> current version. Publishing replaces one reference; the old version drains and is freed behind it.

Everything here runs on the event loop, so a lease and a publication never interleave: a request gets the old
version or the new one, whole.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from kosine.errors import IndexNotReady, UnknownIndex
from kosine.serving.status import IndexState, LoadStatus
from kosine.settings import INDEX_NAME_PATTERN

if TYPE_CHECKING:
    from kosine.serving.version import Lease, Version

__all__ = ("Registry",)

_NAME = re.compile(INDEX_NAME_PATTERN)
_RETRY_LOADING = 2
_RETRY_FAILED = 10


@dataclass(slots=True)
class _Slot:
    """What is known of one configured index."""

    source: str
    required: bool
    current: Version | None = None
    load: LoadStatus = field(default_factory=LoadStatus)
    removing: bool = False

    @property
    def state(self) -> IndexState:
        if self.removing:
            return IndexState.UNLOADING
        if self.current is not None:
            return IndexState.AVAILABLE
        if self.load.last_error is not None and self.load.stage is None:
            return IndexState.FAILED
        return IndexState.LOADING


class Registry:
    """The indexes of one service."""

    def __init__(self) -> None:
        self._slots: dict[str, _Slot] = {}
        self._retiring: dict[asyncio.Task[None], Version] = {}
        self._log = structlog.get_logger("kosine.registry")

    def declare(self, name: str, *, source: str, required: bool) -> None:
        """Make a name known; until its first version is published it answers 503. Again: update the facts."""
        slot = self._slots.get(name)
        if slot is None:
            self._slots[name] = _Slot(source=source, required=required)
        else:
            slot.source, slot.required = source, required

    def __contains__(self, name: str) -> bool:
        """Whether `name` is configured."""
        return name in self._slots

    def names(self) -> list[str]:
        """Configured names, sorted."""
        return sorted(self._slots)

    def lease(self, name: str) -> Lease:
        """Pin the current version of `name`. Raises UnknownIndex or IndexNotReady."""
        slot = self._slots.get(name)
        if slot is not None and slot.current is not None:
            return slot.current.lease()
        raise self._refusal(name)

    def _refusal(self, name: str) -> UnknownIndex | IndexNotReady:
        slot = self._slots.get(name)
        if slot is None:
            shown = name if _NAME.fullmatch(name) else "of that name"
            return UnknownIndex(f"no index {shown} is configured; GET /indexes lists those that are")
        failure = slot.load.last_error
        if failure is None:
            return IndexNotReady(
                f"index {name} is loading its first version; retry later",
                retry_after=_RETRY_LOADING,
                state=slot.state.value,
            )
        return IndexNotReady(
            f"index {name} has no version yet: its last load failed with {failure.code.value}; "
            f"GET /indexes/{name} tells more",
            retry_after=_RETRY_FAILED,
            state=slot.state.value,
            reason=failure.code.value,
        )

    def current(self, name: str) -> Version | None:
        """The version that answers `name` now. Raises UnknownIndex."""
        return self._slot(name).current

    def load_status(self, name: str) -> LoadStatus:
        """What loading is doing for `name`. Raises UnknownIndex."""
        return self._slot(name).load

    def note(self, name: str, status: LoadStatus) -> None:
        """Loading reports; an index that was removed meanwhile is nobody's business any more."""
        slot = self._slots.get(name)
        if slot is not None:
            slot.load = status

    def state(self, name: str) -> IndexState:
        """Whether `name` answers. Raises UnknownIndex."""
        return self._slot(name).state

    def source(self, name: str) -> str:
        """The configured URI. Raises UnknownIndex."""
        return self._slot(name).source

    def required(self, name: str) -> bool:
        """Whether readiness waits for it. Raises UnknownIndex."""
        return self._slot(name).required

    def publish(self, name: str, version: Version) -> None:
        """From the next lease on, `version` answers `name`."""
        slot = self._slot(name)
        old, slot.current = slot.current, version
        if old is not None:
            self._retire(old)

    async def withdraw(self, name: str) -> None:
        """Stop answering `name` and wait until its version is freed: where memory holds only one."""
        slot = self._slot(name)
        old, slot.current = slot.current, None
        if old is not None:
            await asyncio.shield(self._retire(old))

    async def remove(self, name: str) -> None:
        """The index is configured no more: 404 from now on; its version drains and is freed."""
        slot = self._slots.pop(name, None)
        if slot is not None and slot.current is not None:
            slot.removing = True
            await asyncio.shield(self._retire(slot.current))

    def _slot(self, name: str) -> _Slot:
        slot = self._slots.get(name)
        if slot is None:
            raise self._refusal(name)
        return slot

    def _retire(self, version: Version) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(version.retire(), name=f"retire-{version.info.version}")
        self._retiring[task] = version
        task.add_done_callback(self._retired)
        return task

    def _retired(self, task: asyncio.Task[None]) -> None:
        version = self._retiring.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error(
                "retire_failed", index=version.info.name, version=version.info.version, exc_info=error
            )

    async def close(self, *, grace: float = 0.0) -> None:
        """Retire every version; after `grace` seconds whoever still waits is answered 503."""
        for slot in self._slots.values():
            if slot.current is not None:
                self._retire(slot.current)
                slot.current = None
        pending = set(self._retiring)
        if pending:
            _, pending = await asyncio.wait(pending, timeout=grace)
        for task in pending:
            self._retiring[task].abort()
        if pending:
            await asyncio.wait(pending, timeout=1.0)
