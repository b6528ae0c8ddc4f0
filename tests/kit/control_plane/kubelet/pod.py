"""A pod from its binding to its end: network, init containers, containers, status, termination."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.kit.control_plane.kubelet.api import AWAY, STRATEGIC_MERGE_PATCH, ApiRefused
from tests.kit.control_plane.kubelet.container import ContainerRunner
from tests.kit.control_plane.kubelet.container_state import timestamp
from tests.kit.control_plane.kubelet.pod_context import PodContext
from tests.kit.control_plane.kubelet.pod_status import phase_of, pod_status
from tests.kit.control_plane.kubelet.sandbox import sandbox
from tests.kit.control_plane.kubelet.sources import MissingReference, Sources
from tests.kit.control_plane.kubelet.volumes import Volumes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.control_plane.kubelet.api import Api
    from tests.kit.control_plane.kubelet.resources import Pod
    from tests.kit.control_plane.kubelet.settings import KubeletSettings

__all__ = ("PodRunner",)


class PodRunner:
    """Runs one pod; `update` tells it of changes, cancelling `run` ends it without any grace."""

    def __init__(
        self, pod: Pod, api: Api, settings: KubeletSettings, *, number: int, address: str, folder: Path
    ) -> None:
        self.pod = pod
        self.folder = folder
        self._api = api
        self._settings = settings
        self._number = number
        sources = Sources(api, pod, address)
        self._context = PodContext(
            settings, pod, address, 0, folder, sources, Volumes(pod, sources, folder / "volumes")
        )
        self._inits = [ContainerRunner(one, self._context, init=True) for one in pod.spec.init_containers]
        self._containers = [ContainerRunner(one, self._context) for one in pod.spec.containers]
        self._deleted = asyncio.Event()
        self._sync = asyncio.Event()
        self._started = timestamp()
        self._reason: str | None = None
        self._reported: dict[str, Any] = {}

    @property
    def running(self) -> bool:
        """Whether its logs may still grow."""
        return any(runner.state.over is None for runner in (*self._inits, *self._containers))

    def update(self, pod: Pod) -> None:
        """What the API server says of it now. As in the real kubelet, a change syncs its volumes at once."""
        known, self.pod = self.pod, pod
        self._context.sources.pod = pod
        if pod.metadata.deletion_timestamp is not None:
            self._deleted.set()
        if (known.metadata.labels, known.metadata.annotations) != (
            pod.metadata.labels,
            pod.metadata.annotations,
        ):
            self._sync.set()

    async def run(self) -> None:
        """Until the API server knows that it is gone."""
        self.folder.mkdir(parents=True)
        try:
            async with sandbox(self._number, self._context.address) as network:
                self._context.network = network
                await self._live()
            await self._remove()
        finally:
            for runner in (*self._inits, *self._containers):
                runner.kill()
            shutil.rmtree(self.folder / "volumes", ignore_errors=True)

    async def _live(self) -> None:
        running = asyncio.create_task(self._run_containers())
        reporting = asyncio.create_task(self._report_changes())
        syncing = asyncio.create_task(self._sync_volumes())
        deleted = asyncio.create_task(self._deleted.wait())
        tasks = (running, reporting, syncing, deleted)
        try:
            await asyncio.wait({running, deleted}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                grace = self.pod.metadata.deletion_grace_period_seconds
                await self._terminate(30.0 if grace is None else grace)
                await running
            running.result()
            await self._deleted.wait()
            await self._report()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run_containers(self) -> None:
        try:
            async with asyncio.timeout(self.pod.spec.active_deadline_seconds):
                for runner in self._inits:
                    await runner.run()
                    if self._context.stopping.is_set() or (runner.state.over and runner.state.over.code):
                        return
                async with asyncio.TaskGroup() as group:
                    for runner in self._containers:
                        group.create_task(runner.run())
        except TimeoutError:
            self._reason = "DeadlineExceeded"

    async def _terminate(self, grace: float) -> None:
        self._context.stopping.set()
        await asyncio.gather(*(runner.terminate(grace) for runner in (*self._inits, *self._containers)))

    async def _report_changes(self) -> None:
        while True:
            await self._context.changed.wait()
            self._context.changed.clear()
            while not await self._report():
                await asyncio.sleep(0.2)

    async def _report(self) -> bool:
        """Report the status if it is new; False when the API server did not take it."""
        inits = [runner.state for runner in self._inits]
        containers = [runner.state for runner in self._containers]
        status = pod_status(
            phase="Failed" if self._reason else phase_of(inits, containers),
            reason=self._reason,
            address=self._context.address,
            started=self._started,
            inits=inits,
            containers=containers,
            previous=self._reported,
            now=timestamp(),
        )
        if status == self._reported:
            return True
        try:
            await self._api.request(
                "PATCH", f"{self._path}/status", {"status": status}, content_type=STRATEGIC_MERGE_PATCH
            )
        except ApiRefused as refused:
            if refused.status != 404:
                return False
        except AWAY:
            return False
        self._reported = status
        return True

    async def _sync_volumes(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.sync_interval):
                    await self._sync.wait()
            self._sync.clear()
            # Kept as they are while their source is away, as in the real kubelet.
            with suppress(*AWAY, ApiRefused, MissingReference):
                await self._context.volumes.write()

    async def _remove(self) -> None:
        """Tell the API server that nothing of the pod runs any more."""
        gone = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.pod.metadata.uid}}
        while True:
            try:
                await self._api.request("DELETE", self._path, gone)
            except ApiRefused as refused:
                if refused.status in {404, 409}:
                    return
            except AWAY:
                pass
            else:
                return
            await asyncio.sleep(0.3)

    @property
    def _path(self) -> str:
        metadata = self.pod.metadata
        return f"/api/v1/namespaces/{metadata.namespace}/pods/{metadata.name}"
