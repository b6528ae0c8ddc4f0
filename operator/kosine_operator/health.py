"""`/livez`, `/readyz` and `/metrics`: whether the operator works, not only whether it runs.

Alive means: the queue gets through what is due, and the watch tells what lists show. An API server that is
away makes nothing of that fail, since a restart would not bring it back.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from prometheus_client import CollectorRegistry

__all__ = ("Health", "Phase", "serve_health")


class Phase(Protocol):
    """How far the start has come."""

    @property
    def waiting_for(self) -> str | None:
        """What keeps it from being ready; None once it is."""


class _Queue(Protocol):
    def oldest(self) -> float:
        """Seconds that the slowest key has been due, or being looked at."""


class _Inventory(Protocol):
    def unheard_for(self) -> float:
        """Seconds that the watch has been behind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Reads, never writes."""

    queue: _Queue
    inventory: _Inventory
    phase: Phase
    stuck_after: float
    """Seconds without progress that no load explains."""

    def stuck(self) -> list[str]:
        """Why a restart may help; empty while all is well."""
        reasons = []
        if (age := self.queue.oldest()) > self.stuck_after:
            reasons.append(f"queue: the oldest pool has waited for {age:.0f} s")
        if (age := self.inventory.unheard_for()) > self.stuck_after:
            reasons.append(f"watch: has not told for {age:.0f} s what lists show")
        return reasons

    def unready(self) -> list[str]:
        """What is still missing before events are acted on, or on standby."""
        return [] if self.phase.waiting_for is None else [self.phase.waiting_for]


@contextlib.asynccontextmanager
async def serve_health(
    health: Health, *, registry: CollectorRegistry, host: str, port: int
) -> AsyncIterator[int]:
    """Answer until the end of the block; the value is the port. Raises OSError where it is taken."""

    async def livez(_: web.Request) -> web.Response:
        return _verdict(health.stuck())

    async def readyz(_: web.Request) -> web.Response:
        return _verdict(health.unready())

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _verdict(problems: list[str]) -> web.Response:
    return web.Response(status=503 if problems else 200, text="".join(f"{p}\n" for p in problems) or "ok\n")
