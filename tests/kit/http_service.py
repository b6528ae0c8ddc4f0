"""The HTTP side over real registry, batcher and dispatcher, with NumPy as the engine."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from kosine.errors import UnknownIndex
from kosine.http.application import create_doors
from kosine.http.server import HttpServer, bind
from kosine.metrics import Metrics
from kosine.serving.device_thread import DeviceThread
from kosine.serving.dispatcher import Dispatcher
from kosine.serving.health import Health
from kosine.serving.registry import Registry
from kosine.serving.status import ConfigurationStatus
from kosine.settings import IndexSettings, ServiceSettings
from tests.kit.engines import NumpyEngine, matrix_of
from tests.kit.serving import version_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from numpy.typing import ArrayLike, NDArray

    from kosine.engines.engine import Engine
    from kosine.http.application import Doors
    from kosine.http.asgi import ASGIApp
    from kosine.serving.status import ReloadOutcome
    from kosine.serving.version import Version

__all__ = ("HttpService", "ScriptedReloads", "http_service", "in_process", "query", "service_of", "until")


class ScriptedReloads:
    """Implements `Reloads`: ends as it was told to."""

    def __init__(self) -> None:
        self.outcomes: dict[str, ReloadOutcome | Exception] = {}
        self.orders: list[tuple[str, str, str | None]] = []

    async def force(self, name: str) -> ReloadOutcome:
        """See `Reloads.force`."""
        return self._end(name)

    async def order(self, name: str, command: str, version: str | None = None) -> ReloadOutcome:
        """See `Orders.order`."""
        self.orders.append((name, command, version))
        return self._end(name)

    def _end(self, name: str) -> ReloadOutcome:
        if name not in self.outcomes:
            raise UnknownIndex(f"no index {name} is configured")
        outcome = self.outcomes[name]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@dataclass(slots=True, kw_only=True)
class HttpService:
    """Everything a test may want to hold of a running service."""

    registry: Registry
    dispatcher: Dispatcher
    health: Health
    metrics: Metrics
    reloads: ScriptedReloads
    doors: Doors
    settings: ServiceSettings
    default_index: str | None = None
    configuration: ConfigurationStatus = field(default_factory=ConfigurationStatus)
    host: str = ""
    port: int = 0
    server: HttpServer | None = None
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the service listens."""
        return f"http://{self.host}:{self.port}"

    def publish(
        self,
        name: str = "items",
        *,
        engine: Engine | None = None,
        version: str = "v1",
        ids: NDArray[np.generic] | None = None,
        masks: Mapping[str, ArrayLike] | None = None,
        **settings: Any,
    ) -> Version:
        """Declare an index, over the 4 axes of a 4-dimensional space unless told otherwise, and serve it."""
        self.registry.declare(name, source="items.npy", required=True)
        published = version_of(
            self.dispatcher,
            name=name,
            version=version,
            engine=engine or NumpyEngine(matrix=matrix_of(np.eye(4))),
            metrics=self.metrics,
            settings=IndexSettings(uri="items.npy", **settings),
            ids=ids,
            masks=masks,
        )
        self.registry.publish(name, published)
        return published

    def client(self) -> httpx.AsyncClient:
        """A client over real sockets."""
        return httpx.AsyncClient(base_url=self.url, timeout=20)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare connection, closed at the end of the service."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        self.writers.append(writer)
        return reader, writer

    @property
    def connections(self) -> int:
        """How many the server holds open."""
        return 0 if self.server is None else self.server.connections

    async def exchange(self, sent: bytes, *, seconds: float = 10.0) -> bytes:
        """Everything a fresh connection answers to `sent` until the server closes its half."""
        reader, writer = await self.connect()
        writer.write(sent)
        async with asyncio.timeout(seconds):
            return await reader.read()

    def count(self, index: str, outcome: str) -> float:
        """`kosine_requests_total` of one index and outcome."""
        labels = {"index": index, "outcome": outcome}
        return self.metrics.registry.get_sample_value("kosine_requests_total", labels) or 0.0


async def until(holds: Callable[[], bool], *, within: float = 10.0) -> None:
    """Give way to the rest of the loop, and to other threads, until something holds."""
    async with asyncio.timeout(within):
        while not holds():
            await asyncio.sleep(0.001)


def query(*numbers: float, k: int | None = None) -> dict[str, Any]:
    """The body of a query."""
    body: dict[str, Any] = {"embedding": list(numbers)}
    return body if k is None else {**body, "k": k}


def in_process(app: ASGIApp) -> httpx.AsyncClient:
    """A client that calls the application in this loop, without a server."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")


@asynccontextmanager
async def service_of(settings: ServiceSettings | None = None) -> AsyncIterator[HttpService]:
    """The service without a server: its doors are called in process."""
    settings = settings or ServiceSettings(port=0)
    registry, metrics, reloads = Registry(), Metrics(), ScriptedReloads()
    dispatcher = Dispatcher(DeviceThread())
    health = Health(registry=registry, dispatcher=dispatcher)

    def default_index() -> str | None:
        return service.default_index

    doors = create_doors(
        registry=registry,
        health=health,
        metrics=metrics,
        reloads=reloads,
        settings=settings,
        default_index=default_index,
        configuration=lambda: service.configuration,
    )
    service = HttpService(
        registry=registry,
        dispatcher=dispatcher,
        health=health,
        metrics=metrics,
        reloads=reloads,
        doors=doors,
        settings=settings,
    )
    try:
        yield service
    finally:
        await registry.close()
        await dispatcher.close()


@asynccontextmanager
async def http_service(**settings: Any) -> AsyncIterator[HttpService]:
    """The service behind the real server, on a free loopback port."""
    async with service_of(ServiceSettings(port=0, **settings)) as service:
        sock = bind(service.settings.host, service.settings.port)
        service.host, service.port = sock.getsockname()
        service.server = server = HttpServer(
            service.doors.fast, sock=sock, settings=service.settings, metrics=service.metrics
        )
        serving = asyncio.create_task(server.serve())
        try:
            await server.started.wait()
            yield service
        finally:
            for writer in service.writers:
                writer.transport.abort()
            server.stop()
            await serving
