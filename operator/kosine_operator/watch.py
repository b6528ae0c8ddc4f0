"""Tells what changes in the cluster as it changes; the only module that imports kopf.

kopf is used for what it is best at, watch streams that survive what they meet, and for nothing else: one
`on.event` handler per kind hands each object over and returns. There are no handlers that kopf keeps a
record of, so it writes nothing: no finalizer, no annotation, no Kubernetes Event. It runs on an event loop of
its own in a thread of its own, because when it ends it cancels every task of its loop that it does not know;
and when it ends, for whatever reason, it is started again within a second.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import kopf
import structlog

from kosine_operator.work_queue import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kosine_operator.kinds import Kind

__all__ = ("Watch",)

_LONG_ENOUGH = 60.0
"""A watch that lasted so many seconds was well; what ends it is a first failure again."""
_LONGEST_SILENCE = 70.0
"""The API server says something every 60 s at the latest; a connection that does not is dead."""


class _ForEver:
    """kopf's pauses between tries of one request, in seconds: it gives up, and ends, where they end."""

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.5, 1.0, 2.0, 3.0), itertools.repeat(5.0))


class Watch:
    """Watches `selectors`' kinds in `namespaces` (None: all) with the label selector of each.

    `deliver(kind, object, deleted)` is called on the event loop that `run` runs on.
    """

    def __init__(
        self,
        *,
        selectors: Mapping[Kind, str | None],
        namespaces: tuple[str | None, ...],
        deliver: Callable[[Kind, Mapping[str, Any], bool], None],
        longest_silence: float = _LONGEST_SILENCE,
    ) -> None:
        self._longest_silence = longest_silence
        self._selectors = selectors
        self._namespaces = namespaces
        self._deliver = deliver
        self._backoff = Backoff(first=0.25, longest=15.0)
        self._log = structlog.get_logger(__name__)

    async def run(self) -> None:
        """Watch until cancelled."""
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            began = loop.time()
            try:
                await self._watch_once(loop)
            except Exception:  # noqa: BLE001  whatever kopf ends with, events have to come again
                self._log.warning("watch_failed", exc_info=True)
            else:
                self._log.warning("watch_ended")
            failures = 1 if loop.time() - began > _LONG_ENOUGH else failures + 1
            await asyncio.sleep(self._backoff.after(failures))

    async def _watch_once(self, loop: asyncio.AbstractEventLoop) -> None:
        stop = threading.Event()
        with ThreadPoolExecutor(1, thread_name_prefix="kopf") as thread:
            watching = loop.run_in_executor(thread, self._in_thread, loop, stop)
            try:
                await asyncio.shield(watching)
            except asyncio.CancelledError:
                stop.set()
                await asyncio.wait({watching})
                raise

    def _in_thread(self, loop: asyncio.AbstractEventLoop, stop: threading.Event) -> None:
        asyncio.run(self._follow(loop, stop))

    async def _follow(self, loop: asyncio.AbstractEventLoop, stop: threading.Event) -> None:
        clusterwide = self._namespaces == (None,)
        try:
            await kopf.operator(
                registry=self._registry(loop, stop),
                settings=self._settings(),
                namespaces=() if clusterwide else [each for each in self._namespaces if each is not None],
                clusterwide=clusterwide,
                standalone=True,
                stop_flag=stop,
            )
        finally:
            # kopf waits for it in a thread of the loop, which cannot be closed before that ends.
            stop.set()

    def _registry(self, loop: asyncio.AbstractEventLoop, stop: threading.Event) -> kopf.OperatorRegistry:
        async def clean_up(**_: object) -> None:
            # Where kopf ends of itself it waits 5 s for its own waiting for the flag.
            stop.set()

        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(_login)
        kopf.on.cleanup(registry=registry)(clean_up)
        for kind in self._selectors:
            self._handle(kind, loop, registry)
        return registry

    def _handle(self, kind: Kind, loop: asyncio.AbstractEventLoop, registry: kopf.OperatorRegistry) -> None:
        async def hear(event: kopf.RawEvent, **_: object) -> None:
            deleted = event["type"] == "DELETED"
            loop.call_soon_threadsafe(self._deliver, kind, event["object"], deleted)

        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry)(hear)

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        # Looking for CRDs and namespaces needs rights on the whole cluster, and 54 s of retries without them.
        settings.scanning.disabled = True
        settings.peering.standalone = True
        settings.posting.enabled = False
        settings.process.ultimate_exiting_timeout = None
        settings.networking.error_backoffs = _ForEver()
        settings.networking.enforce_retry_after = True
        settings.networking.connect_timeout = 5.0
        settings.networking.request_timeout = 30.0
        settings.watching.inactivity_timeout = self._longest_silence
        for kind, selector in self._selectors.items():
            if selector is not None:
                settings.watching.label_selectors[kind.group, kind.version, kind.plural] = selector
        return settings


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    in_pod = kopf.login_with_service_account(**kwargs)
    if in_pod is None:
        return kopf.login_with_kubeconfig(**kwargs)
    # By the address that every pod is given: kopf's own choice is a name, and so a watch that ends with DNS.
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    return replace(in_pod, server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}")
