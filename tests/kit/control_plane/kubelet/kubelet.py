"""The kubelet: runs the pods that are bound to its node, and the ClusterIPs beside them."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tests.kit.control_plane.kubelet import node
from tests.kit.control_plane.kubelet.api import Listed, connected
from tests.kit.control_plane.kubelet.logs_server import logs_server
from tests.kit.control_plane.kubelet.pod import PodRunner
from tests.kit.control_plane.kubelet.pod_status import FINAL
from tests.kit.control_plane.kubelet.resources import Pod
from tests.kit.control_plane.kubelet.sandbox import pod_address
from tests.kit.control_plane.kubelet.service_proxy import ServiceProxy

if TYPE_CHECKING:
    from tests.kit.control_plane.kubelet.api import Api
    from tests.kit.control_plane.kubelet.settings import KubeletSettings

__all__ = ("Kubelet",)


class Kubelet:
    """`run` until it is cancelled; then every container is killed at once."""

    def __init__(self, settings: KubeletSettings) -> None:
        self._settings = settings
        self._pods: dict[str, PodRunner] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._numbers = itertools.count()

    async def run(self) -> None:
        """Ends only by cancellation, or with the error of what must not fail: the kit's own parts."""
        settings = self._settings
        async with (
            connected(settings) as api,
            logs_server(settings, self._find) as logs_port,
            asyncio.TaskGroup() as tasks,
        ):
            await node.register(api, settings, logs_port=logs_port)
            tasks.create_task(ServiceProxy(api).run())
            tasks.create_task(self._follow_pods(api, tasks))

    async def _follow_pods(self, api: Api, tasks: asyncio.TaskGroup) -> None:
        async for news in api.follow(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{self._settings.node}"):
            if isinstance(news, Listed):
                pods = [msgspec.convert(item, Pod) for item in news.items]
                for uid in self._pods.keys() - {pod.metadata.uid for pod in pods}:
                    self._tasks[uid].cancel()
                for pod in pods:
                    self._see(pod, api, tasks)
                continue
            pod = msgspec.convert(news.item, Pod)
            if news.kind != "DELETED":
                self._see(pod, api, tasks)
            elif pod.metadata.uid in self._tasks:
                self._tasks[pod.metadata.uid].cancel()

    def _see(self, pod: Pod, api: Api, tasks: asyncio.TaskGroup) -> None:
        uid = pod.metadata.uid
        if uid in self._pods:
            self._pods[uid].update(pod)
            return
        if pod.status.phase in FINAL and pod.metadata.deletion_timestamp is None:
            return
        number = next(self._numbers)
        runner = PodRunner(
            pod,
            api,
            self._settings,
            number=number,
            address=pod_address(number),
            folder=Path(self._settings.folder) / f"{pod.metadata.namespace}_{pod.metadata.name}_{number}",
        )
        runner.update(pod)
        self._pods[uid] = runner
        task = self._tasks[uid] = tasks.create_task(runner.run())
        task.add_done_callback(lambda _: self._forget(uid))

    def _forget(self, uid: str) -> None:
        del self._pods[uid], self._tasks[uid]

    def _find(self, namespace: str, name: str) -> PodRunner | None:
        here = (runner for runner in self._pods.values() if runner.pod.metadata.namespace == namespace)
        return next((runner for runner in here if runner.pod.metadata.name == name), None)
