"""Log events that a test can wait for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, MutableMapping

__all__ = ("LogEvents", "log_events")


class LogEvents:
    """Everything that was logged while it was in force, as dicts with `event` and `log_level`."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []
        self._loop = asyncio.get_running_loop()
        self._more = asyncio.Event()

    def __call__(self, _: object, method: str, event: MutableMapping[str, Any]) -> Any:
        """Be a structlog processor, of any thread."""
        self.all.append({**event, "log_level": method})
        self._loop.call_soon_threadsafe(self._more.set)
        raise structlog.DropEvent

    def named(self, name: str) -> list[dict[str, Any]]:
        """Those of one name, in order."""
        return [event for event in self.all if event["event"] == name]

    async def wait(self, name: str, *, count: int = 1, within: float = 10.0) -> dict[str, Any]:
        """The `count`-th event of that name."""
        async with asyncio.timeout(within):
            while len(self.named(name)) < count:
                self._more.clear()
                await self._more.wait()
        return self.named(name)[count - 1]


@contextlib.asynccontextmanager
async def log_events() -> AsyncIterator[LogEvents]:
    """Log into memory, also what holds a logger already."""
    processors = structlog.get_config()["processors"]
    before, events = list(processors), LogEvents()
    processors[:] = [events]
    try:
        yield events
    finally:
        processors[:] = before
