"""A container over all its runs: start, probe, notice the end, start again after a back-off."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp

from tests.kit.control_plane.kubelet import probes, process
from tests.kit.control_plane.kubelet.api import AWAY, ApiRefused
from tests.kit.control_plane.kubelet.container_state import (
    ContainerState,
    Ended,
    backoff,
    restarts,
    timestamp,
)
from tests.kit.control_plane.kubelet.environment import command, environment
from tests.kit.control_plane.kubelet.probes import Verdict
from tests.kit.control_plane.kubelet.sources import MissingReference

if TYPE_CHECKING:
    from tests.kit.control_plane.kubelet.pod_context import PodContext
    from tests.kit.control_plane.kubelet.process import ContainerProcess
    from tests.kit.control_plane.kubelet.resources import Container, Handler, Probe

__all__ = ("ContainerRunner",)

LEAST_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL even where preStop has used up the grace, as in the real kubelet."""


class UnknownImage(Exception):
    """The kubelet was not told what the image is."""


class ContainerRunner:
    """Runs one container of a pod until it is over or its task is cancelled."""

    def __init__(self, container: Container, context: PodContext, *, init: bool = False) -> None:
        self.container = container
        self.state = ContainerState(container.name, container.image)
        self._context = context
        self._init = init
        self._process: ContainerProcess | None = None
        self._restart = asyncio.Event()  # a probe wants it

    async def run(self) -> None:
        """Until it is over: for a container that always restarts, never."""
        policy = self._context.pod.spec.restart_policy
        while (running := await self._start()) is not None:
            ended = await self._watch(running)
            if self._context.stopping.is_set() or not restarts(policy, ended.code, init=self._init):
                self._change(over=ended, waiting=None)
                return
            again = self.state.restarts + 1
            message = f"back-off {backoff(again):.1f}s restarting failed container"
            self._change(last=ended, restarts=again, waiting=("CrashLoopBackOff", message))
            await self._pause(backoff(again))
        now = timestamp()
        self._change(over=self.state.last or Ended(137, now, now, "ContainerStatusUnknown"), waiting=None)

    async def terminate(self, grace: float) -> None:
        """PreStop, SIGTERM, the rest of the grace, SIGKILL; returns when nothing of it runs."""
        running = self._process
        if running is None:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        hook = self.container.lifecycle.pre_stop if self.container.lifecycle else None
        if hook is not None:
            with suppress(TimeoutError, aiohttp.ClientError, OSError):
                async with asyncio.timeout_at(deadline):
                    await self._run_hook(hook, running)
        running.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(deadline - loop.time(), LEAST_GRACE if grace else 0)):
                await running.wait()
        running.kill()
        await running.wait()

    def kill(self) -> None:
        """At once."""
        if self._process is not None:
            self._process.kill()

    async def _start(self) -> ContainerProcess | None:
        """Try until it starts: an image or a reference may still come. None when the pod stops before."""
        while not self._context.stopping.is_set():
            try:
                return await self._try_start()
            except UnknownImage as problem:
                reason = ("ErrImagePull", str(problem))
            except (MissingReference, ApiRefused, ValueError) as problem:
                reason = ("CreateContainerConfigError", str(problem))
            except AWAY as problem:
                reason = ("CreateContainerError", str(problem))
            self._change(waiting=reason)
            await self._pause(0.5)
        return None

    async def _pause(self, seconds: float) -> None:
        """Unless the pod stops."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._context.stopping.wait()

    async def _try_start(self) -> ContainerProcess:
        context, container = self._context, self.container
        if container.image not in context.settings.images:
            raise UnknownImage(f'no command is known for image "{container.image}"')
        image = context.settings.images[container.image]
        volumes = await context.volumes.write()
        variables = await environment(container, context.sources, image.environment)
        started = await process.start(
            container,
            image,
            command(container, image.command, variables),
            variables,
            process.mounts(container, volumes, () if image.root else context.settings.image_folders),
            network=context.network,
            address=context.address,
            folder=context.folder,
        )
        self._process = started
        if context.stopping.is_set():  # too late for `terminate` to see it
            started.kill()
        self._restart.clear()
        self._change(running_since=timestamp(), waiting=None)
        return started

    async def _watch(self, running: ContainerProcess) -> Ended:
        """Probe until the process ends or the liveness or startup probe has it restarted."""
        since = self.state.running_since or timestamp()
        probing = asyncio.create_task(self._probe(running))
        restart = asyncio.create_task(self._restart.wait())
        end = asyncio.create_task(running.wait())
        try:
            await asyncio.wait({end, restart}, return_when=asyncio.FIRST_COMPLETED)
            if not end.done():
                await self.terminate(self._context.pod.spec.termination_grace_period_seconds)
            return Ended(await end, since, timestamp())
        finally:
            for task in (probing, restart, end):
                task.cancel()
            await asyncio.gather(probing, restart, end, return_exceptions=True)
            running.kill()  # what the first process may have left behind
            self._process = None
            self._change(running_since=None, started=False, ready=False)

    async def _probe(self, running: ContainerProcess) -> None:
        if self.container.startup_probe is not None:
            await self._startup(self.container.startup_probe, running)
        self._change(started=True, ready=self.container.readiness_probe is None)
        async with asyncio.TaskGroup() as probing:
            if self.container.readiness_probe is not None:
                probing.create_task(self._readiness(self.container.readiness_probe, running))
            if self.container.liveness_probe is not None:
                probing.create_task(self._liveness(self.container.liveness_probe, running))

    async def _startup(self, probe: Probe, running: ContainerProcess) -> None:
        verdict = Verdict(passing=False)

        def result(success: bool) -> bool:
            nonlocal verdict
            verdict = probes.after(probe, verdict, success=success)
            if verdict.failures >= probe.failure_threshold:
                self._restart.set()
            return not verdict.passing

        await probes.watch(probe, self.container, running, result)

    async def _readiness(self, probe: Probe, running: ContainerProcess) -> None:
        verdict = Verdict(passing=False)

        def result(success: bool) -> bool:
            nonlocal verdict
            verdict = probes.after(probe, verdict, success=success)
            self._change(ready=verdict.passing)
            return True

        await probes.watch(probe, self.container, running, result)

    async def _liveness(self, probe: Probe, running: ContainerProcess) -> None:
        verdict = Verdict(passing=True)

        def result(success: bool) -> bool:
            nonlocal verdict
            verdict = probes.after(probe, verdict, success=success)
            if not verdict.passing:
                self._restart.set()
            return verdict.passing

        await probes.watch(probe, self.container, running, result)

    async def _run_hook(self, hook: Handler, running: ContainerProcess) -> None:
        if hook.sleep is not None:
            await asyncio.sleep(hook.sleep.seconds)
        if hook.exec is not None:
            await running.run(hook.exec.command)
        if hook.http_get is not None:
            await probes.http_get(hook.http_get, self.container, running.address)

    def _change(self, **changes: object) -> None:
        for name, value in changes.items():
            setattr(self.state, name, value)
        self._context.changed.set()
