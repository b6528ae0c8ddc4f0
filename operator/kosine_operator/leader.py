"""Which of several operators works: the holder of a `coordination.k8s.io` Lease.

Every write of the holder waits while its lease may have run out (`valid`), and finding the lease in other
hands is final: `keep` raises, and the process ends. An API server that is away therefore costs the holder
nothing: it goes on where it was if nobody took over meanwhile. Time is measured by our own monotonic clock
from when a renewal was seen or asked for, so clocks of machines need not agree.

Not the client's `leaderelection`: that one ends on the first refused connection, writes local time as UTC,
judges by the wall clock, and does not hand the lease back when it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from kosine_operator.api_errors import ApiError, Conflict
from kosine_operator.kinds import LEASE, Ref

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from kosine_operator.cluster import Cluster

__all__ = ("Lease", "LeaseLost", "Record", "may_take")

_RENEWALS = 5
"""Tries within the time of a lease."""
_TRUSTED = 2 / 3
"""Share of a lease in which its holder may write; the rest is for requests that are on their way."""


class LeaseLost(Exception):
    """Somebody else works now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A lease as it was first seen in this state."""

    holder: str
    """Empty where it was handed back."""
    renewed: str
    duration: float
    seen_at: float
    """By our clock."""


def may_take(record: Record | None, *, me: str, now: float) -> bool:
    """Whether the lease is ours, nobody's, or not renewed since `duration` seconds before `now`."""
    if record is None or record.holder in ("", me):
        return True
    return now - record.seen_at > record.duration


class Lease:
    """One candidate's view of one lease. Create and use it on the event loop."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        namespace: str,
        name: str,
        identity: str,
        duration: float,
        rng: random.Random,
    ) -> None:
        self._cluster = cluster
        self._ref = Ref(LEASE, namespace, name)
        self._me = identity
        self._duration = duration
        self._rng = rng
        self._now: Callable[[], float] = asyncio.get_running_loop().time
        self._seen: Record | None = None
        self._object: dict[str, Any] | None = None
        self._asked_at: float | None = None
        """When the last renewal that worked was asked for."""
        self._renewed = asyncio.Event()
        self._log = structlog.get_logger(__name__).bind(lease=str(self._ref), identity=identity)

    @property
    def valid(self) -> bool:
        """Whether nobody else can hold the lease now."""
        asked = self._asked_at
        return asked is not None and self._now() - asked < self._duration * _TRUSTED

    async def wait_valid(self) -> None:
        """Come back once `valid`."""
        while not self.valid:
            self._renewed.clear()
            await self._renewed.wait()

    async def acquire(self) -> None:
        """Come back as the holder."""
        self._log.info("lease_awaited")
        while not await self._try():
            await self._pause()
        self._log.info("lease_taken")

    async def keep(self) -> None:
        """Renew for ever. Raises LeaseLost."""
        while True:
            await self._pause()
            if not await self._try() and self._seen is not None and self._seen.holder not in ("", self._me):
                self._log.error("lease_lost", holder=self._seen.holder)
                raise LeaseLost(f"{self._ref} is held by {self._seen.holder} now")

    async def release(self) -> None:
        """Hand it back, so that the next one need not wait for it to run out."""
        if self.valid and self._object is not None:
            self._asked_at = None
            with contextlib.suppress(ApiError):
                await self._cluster.replace(self._ref, self._claim(self._object, holder=""))
                self._log.info("lease_released")

    async def _pause(self) -> None:
        await asyncio.sleep(self._duration / _RENEWALS * self._rng.uniform(0.8, 1.0))

    async def _try(self) -> bool:
        """Take or renew it, if that may be; whether it is ours now as far as we can tell."""
        asked = self._now()
        try:
            self._look(await self._cluster.get(self._ref))
            if not may_take(self._seen, me=self._me, now=self._now()):
                return False
            self._look(await self._write())
        except Conflict:
            return False
        except ApiError as error:
            self._log.warning("lease_unreachable", detail=error.message)
            return False
        self._asked_at = asked
        self._renewed.set()
        return True

    def _look(self, found: dict[str, Any] | None) -> None:
        self._object = found
        spec = found.get("spec", {}) if found is not None else {}
        holder, renewed = spec.get("holderIdentity") or "", spec.get("renewTime") or ""
        duration = float(spec.get("leaseDurationSeconds") or self._duration)
        if found is None:
            self._seen = None
        elif self._seen is None or (holder, renewed) != (self._seen.holder, self._seen.renewed):
            self._seen = Record(holder=holder, renewed=renewed, duration=duration, seen_at=self._now())

    async def _write(self) -> dict[str, Any]:
        if self._object is None:
            fresh = {
                "apiVersion": LEASE.api_version,
                "kind": LEASE.name,
                "metadata": {"name": self._ref.name, "namespace": self._ref.namespace},
            }
            return await self._cluster.create(LEASE, self._claim(fresh, holder=self._me))
        return await self._cluster.replace(self._ref, self._claim(self._object, holder=self._me))

    def _claim(self, lease: dict[str, Any], *, holder: str) -> dict[str, Any]:
        spec = lease.get("spec", {})
        now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        changed = holder != (spec.get("holderIdentity") or "")
        return {
            **lease,
            "spec": {
                **spec,
                "holderIdentity": holder,
                "leaseDurationSeconds": round(self._duration),
                "acquireTime": now if changed else spec.get("acquireTime", now),
                "renewTime": now,
                "leaseTransitions": spec.get("leaseTransitions", 0) + (changed and holder != ""),
            },
        }
