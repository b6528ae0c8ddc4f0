"""ClusterIPs: every connection to a Service goes to one of its ready endpoints in turn.

A Service without ready endpoints refuses connections, as it does behind kube-proxy. TCP only; headless
Services and node ports have nothing here.
"""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import msgspec

from tests.kit.control_plane.kubelet.api import Listed
from tests.kit.control_plane.kubelet.resources import EndpointSlice, Service

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.kit.control_plane.kubelet.api import Api, Changed

__all__ = ("Address", "ServiceProxy", "routes")

Address = tuple[str, int]
Key = tuple[str, str]
Named = TypeVar("Named", Service, EndpointSlice)


def routes(
    services: Iterable[Service], slices: Iterable[EndpointSlice]
) -> dict[Address, tuple[Address, ...]]:
    """(ClusterIP, port) -> its ready endpoints, sorted; those without any are left out."""
    by_service: dict[Key, list[EndpointSlice]] = {}
    for one in slices:
        name = one.metadata.labels.get("kubernetes.io/service-name", "")
        by_service.setdefault((one.metadata.namespace, name), []).append(one)
    found = {
        (service.spec.cluster_ip, port.port): tuple(
            sorted(
                set(
                    _ready(by_service.get((service.metadata.namespace, service.metadata.name), ()), port.name)
                )
            )
        )
        for service in services
        if service.spec.cluster_ip not in {"", "None"}
        for port in service.spec.ports
        if port.protocol == "TCP"
    }
    return {address: endpoints for address, endpoints in found.items() if endpoints}


def _ready(slices: Iterable[EndpointSlice], port_name: str) -> Iterator[Address]:
    for one in slices:
        for port in one.ports or ():
            if (port.name or "") != port_name or port.port is None:
                continue
            for endpoint in one.endpoints or ():
                # No word on readiness means ready.
                if endpoint.conditions.ready is not False:
                    yield endpoint.addresses[0], port.port


@dataclass(slots=True)
class _Listener:
    """One ClusterIP and port while it has endpoints."""

    endpoints: tuple[Address, ...]
    turn: Iterator[int] = field(default_factory=itertools.count)
    server: asyncio.Server | None = None

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join the connection with one to an endpoint; refusal by all of them ends it."""
        for _ in range(len(self.endpoints)):
            endpoint = self.endpoints[next(self.turn) % len(self.endpoints)]
            with suppress(OSError):
                there_reader, there_writer = await asyncio.open_connection(*endpoint)
                break
        else:
            writer.transport.abort()
            return
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pipe(reader, there_writer))
                both.create_task(_pipe(there_reader, writer))
        finally:
            for end in (writer, there_writer):
                end.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side ends; a reset on one side is passed on to the other."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.transport.abort()


class ServiceProxy:
    """Listens on the ClusterIPs of all Services that have ready endpoints."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._services: dict[Key, Service] = {}
        self._slices: dict[Key, EndpointSlice] = {}
        self._listeners: dict[Address, _Listener] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow("/api/v1/services", Service, self._services))
            tasks.create_task(
                self._follow("/apis/discovery.k8s.io/v1/endpointslices", EndpointSlice, self._slices)
            )
            tasks.create_task(self._listen())

    async def _follow(self, path: str, kind: type[Named], known: dict[Key, Named]) -> None:
        async for news in self._api.follow(path):
            _apply(news, kind, known)
            self._changed.set()

    async def _listen(self) -> None:
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                await self._serve(routes(self._services.values(), self._slices.values()))
        finally:
            for listener in self._listeners.values():
                if listener.server is not None:
                    listener.server.close()

    async def _serve(self, wanted: dict[Address, tuple[Address, ...]]) -> None:
        for address in self._listeners.keys() - wanted.keys():
            server = self._listeners.pop(address).server
            if server is not None:
                server.close()
        for address, endpoints in wanted.items():
            if address in self._listeners:
                self._listeners[address].endpoints = endpoints
            else:
                listener = self._listeners[address] = _Listener(endpoints)
                listener.server = await asyncio.start_server(listener.accept, *address)


def _apply(news: Listed | Changed, kind: type[Named], known: dict[Key, Named]) -> None:
    if isinstance(news, Listed):
        known.clear()
        for item in news.items:
            one = msgspec.convert(item, kind)
            known[one.metadata.namespace, one.metadata.name] = one
        return
    one = msgspec.convert(news.item, kind)
    key = (one.metadata.namespace, one.metadata.name)
    if news.kind == "DELETED":
        known.pop(key, None)
    else:
        known[key] = one
