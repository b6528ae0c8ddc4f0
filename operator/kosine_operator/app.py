"""Composition root: settings in, a running operator out. Nothing else builds the parts.

Order of start: health endpoint, lease, first complete list, then queue, watch and resync together. Order of
stop: watch and resync, looks that run, lease, health endpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from typing import TYPE_CHECKING, Any

import aiohttp
import structlog

from kosine_operator.api_errors import ApiError, retry_after
from kosine_operator.applier import Applier
from kosine_operator.catalogue import Catalogue
from kosine_operator.cluster import open_cluster
from kosine_operator.health import Health, serve_health
from kosine_operator.inventory import Inventory
from kosine_operator.leader import Lease
from kosine_operator.metrics import Metrics, OperatorCollector, reason_of
from kosine_operator.pods import Pods
from kosine_operator.reconcile import Reconciler
from kosine_operator.render.container import PORT
from kosine_operator.reporter import Reporter
from kosine_operator.resync import Resync, selectors
from kosine_operator.routing import concerned
from kosine_operator.watch import Watch
from kosine_operator.work_queue import Backoff, Pace, WorkQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kosine_operator.cluster import Cluster
    from kosine_operator.inventory import Changed
    from kosine_operator.kinds import Kind
    from kosine_operator.pools import PoolKey
    from kosine_operator.settings import OperatorSettings
    from kosine_operator.work_queue import Finished

__all__ = ("Operator", "run")

_STUCK_AFTER = 180.0
_LONGEST_LOOK = 60.0
_LOOKS_PER_SECOND = 50.0
_BURST = 200
_GRACE = 10.0
"""For looks that run when the operator is told to stop."""


async def run(settings: OperatorSettings, *, started: Callable[[int], None]) -> None:
    """Work until SIGTERM or SIGINT; `started(port)` is called once the health endpoint answers.

    Raises ApiError where no cluster is configured, OSError where the port is taken, LeaseLost.
    """
    stop = asyncio.Event()
    _install_signals(stop)
    async with (
        open_cluster(within=settings.api_timeout) as cluster,
        aiohttp.ClientSession(trust_env=False) as session,
    ):
        operator = Operator(settings, cluster=cluster, session=session)
        async with serve_health(
            operator.health, registry=operator.metrics.registry, host=settings.host, port=settings.port
        ) as port:
            started(port)
            working = asyncio.create_task(operator.work(), name="work")
            stopped = asyncio.create_task(stop.wait(), name="stop")
            try:
                await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if working.done():
                    await working
            finally:
                stopped.cancel()
                working.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await working
    structlog.get_logger("kosine_operator").info("stopped")


class Operator:
    """All parts of one operator. Create and use it on the event loop."""

    def __init__(
        self, settings: OperatorSettings, *, cluster: Cluster, session: aiohttp.ClientSession
    ) -> None:
        rng = random.Random()  # noqa: S311  spreads requests, keeps no secret
        self._settings = settings
        self._log = structlog.get_logger("kosine_operator")
        self.metrics = Metrics()
        self.waiting_for: str | None = None
        self._lease = None
        if (lease := settings.lease) is not None:
            self._lease = Lease(
                cluster,
                namespace=lease.namespace,
                name=lease.name,
                identity=settings.identity,
                duration=lease.duration,
                rng=rng,
            )
            cluster = cluster.permitted_by(self._lease.wait_valid)
        self._inventory = Inventory(now=asyncio.get_running_loop().time)
        self._queue: WorkQueue[PoolKey] = WorkQueue(
            self._look,
            workers=settings.workers,
            limit=_LONGEST_LOOK,
            pace=Pace(per_second=_LOOKS_PER_SECOND, burst=_BURST),
            backoff=Backoff(),
            rng=rng,
            finished=self._finished,
            at_least=retry_after,
        )
        self._resync = Resync(
            cluster=cluster,
            inventory=self._inventory,
            namespaces=settings.watched,
            interval=settings.resync,
            rng=rng,
            changed=self._changed,
            again=lambda key, after: self._queue.add(key, after=after),
        )
        self._look_at = self._reconciler(cluster, session)
        self.health = Health(
            queue=self._queue, inventory=self._inventory, phase=self, stuck_after=_STUCK_AFTER
        )
        self.metrics.registry.register(OperatorCollector(queue=self._queue, inventory=self._inventory))

    async def work(self) -> None:
        """Lead, and do what a leader does, until cancelled. Raises LeaseLost."""
        if self._lease is None:
            await self._lead()
            return
        await self._lease.acquire()
        async with contextlib.AsyncExitStack() as stopping:
            stopping.push_async_callback(self._lease.release)
            keeping = asyncio.create_task(self._lease.keep(), name="lease")
            stopping.push_async_callback(_end, keeping)
            leading = asyncio.create_task(self._lead(), name="lead")
            stopping.push_async_callback(_end, leading)
            await asyncio.wait({keeping, leading}, return_when=asyncio.FIRST_COMPLETED)

    async def _lead(self) -> None:
        self.waiting_for = "the first complete list of the cluster's objects"
        await self._resync.first()
        self.waiting_for = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._queue.run(), name="queue")
                group.create_task(self._follow(), name="follow")
        finally:
            await self._queue.close(grace=_GRACE)

    async def _follow(self) -> None:
        """Watch and resync; with other watches where the kinds of the cluster are others."""
        while True:
            watch = Watch(
                selectors=selectors(self._resync.optional),
                namespaces=self._settings.watched,
                deliver=self._deliver,
            )
            watching = asyncio.create_task(watch.run(), name="watch")
            try:
                await self._resync.run()
            finally:
                await _end(watching)

    def _deliver(self, kind: Kind, obj: Mapping[str, Any], deleted: bool) -> None:  # noqa: FBT001
        if (change := self._inventory.hear(kind, obj, deleted=deleted)) is not None:
            self._changed(change)

    def _changed(self, change: Changed) -> None:
        for key in concerned(change, self._inventory):
            self._queue.add(key)

    async def _look(self, key: PoolKey) -> float | None:
        return await self._look_at(key)

    def _finished(self, look: Finished[PoolKey]) -> None:
        self.metrics.finished(look)
        key, error = look.key, look.error
        if error is None:
            return
        log = self._log.bind(
            namespace=key.namespace, pool=key.label, failures=look.failures, retry_in=look.again
        )
        if isinstance(error, ApiError | TimeoutError):
            log.warning("reconcile_failed", reason=reason_of(error), detail=str(error))
        else:
            log.error("reconcile_defect", exc_info=error)

    def _reconciler(self, cluster: Cluster, session: aiohttp.ClientSession) -> Reconciler:
        settings, wrote = self._settings, self.metrics.wrote
        return Reconciler(
            inventory=self._inventory,
            catalogue=Catalogue(self._inventory),
            applier=Applier(cluster, self._inventory, wrote=wrote),
            reporter=Reporter(
                cluster, self._inventory, identity=settings.identity, wrote=wrote, changed=self._changed
            ),
            pods=Pods(session, port=PORT, within=settings.pod_timeout),
            defaults=settings.defaults,
            capabilities=lambda: self._resync.capabilities,
            pending=settings.pending,
        )


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel it and wait; what it died of is raised."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _install_signals(stop: asyncio.Event) -> None:
    log = structlog.get_logger("kosine_operator")

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("killed", signal=number.name)
            sys.stderr.flush()
            # No finally blocks, no atexit: whoever sends a second signal does not want to wait.
            os._exit(128 + number)
        log.info("stopping", signal=number.name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
