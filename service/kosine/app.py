"""Composition root: settings in, a running service out. Nothing else builds the parts.

Order of start: port, device, loop, indexes, graphs, listening; what cannot work fails before anything is
promised.
Order of stop: unready, `drain_delay`, no new connections, requests in flight, loads, versions, device.
"""

from __future__ import annotations

import asyncio
import gc
import random
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import uvloop

from kosine.configuration import settings_hash
from kosine.engines.device import open_device
from kosine.http.application import create_http
from kosine.http.server import HttpServer, bind
from kosine.loading.admission import Admission, MemoryProbe
from kosine.loading.catalog import Catalog
from kosine.loading.config_watch import ConfigWatch
from kosine.loading.copies import Copies
from kosine.loading.pipeline import Pipeline
from kosine.loading.storage.stores import Stores
from kosine.loading.threads import LoaderThreads
from kosine.loading.watcher import Watcher
from kosine.metrics import Metrics
from kosine.serving.collector import IndexCollector
from kosine.serving.device_thread import DeviceThread
from kosine.serving.dispatcher import Dispatcher
from kosine.serving.health import Health
from kosine.serving.registry import Registry
from kosine.serving.status import ConfigurationStatus
from kosine.source_uri import UriPolicy
from kosine.stop_signals import StopSignals

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from kosine.engines.engine import EngineFactory, OpenedDevice
    from kosine.settings import Device, Screening, ServiceSettings, Settings

__all__ = ("serve",)

_YOUNG_OBJECTS = 10_000
"""More than the queries of a few batches make; what they make goes without the collector, and it would look
through all of it several times a batch: a twentieth of the loop's time."""


def serve(
    settings: Settings,
    *,
    config_path: Path | None,
    load_settings: Callable[[], Settings],
    started: Callable[[str], None],
    open_device: Callable[[Device, int | None, Screening], OpenedDevice] = open_device,
) -> None:
    """Serve until SIGTERM or SIGINT; blocks.

    `load_settings` reads the configuration again when the file at `config_path` changes; `started(url)` is
    called once the port answers; `open_device` makes what scores. Raises StartupError where the port is
    taken or the device is missing.
    """
    sock = bind(settings.service.host, settings.service.port)
    try:
        service = settings.service
        device = open_device(service.device, service.threads, service.screening)
        structlog.get_logger("kosine").info("device_opened", **device.describe())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(
                _run(
                    settings,
                    sock=sock,
                    device=device,
                    config_path=config_path,
                    load_settings=load_settings,
                    started=started,
                )
            )
    finally:
        sock.close()


def _keep_for_good() -> None:
    """Take what is there out of the garbage collector's sight: modules, TensorFlow's registries, the graphs.

    A full collection otherwise looks through half a million objects that never die, with the interpreter lock
    held: 0.2 s in which nobody is answered. Imports leave no garbage worth collecting first.
    """
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])


async def _run(
    settings: Settings,
    *,
    sock: socket.socket,
    device: OpenedDevice,
    config_path: Path | None,
    load_settings: Callable[[], Settings],
    started: Callable[[str], None],
) -> None:
    service = settings.service
    log = structlog.get_logger("kosine")
    async with AsyncExitStack() as stopping:
        metrics = Metrics()
        dispatcher = Dispatcher(DeviceThread())
        stopping.push_async_callback(dispatcher.close)
        registry = Registry()
        stopping.push_async_callback(registry.close, grace=service.grace)
        metrics.registry.register(IndexCollector(registry))
        health = Health(registry=registry, dispatcher=dispatcher)
        threads = LoaderThreads(
            slots=service.load_slots, nice=service.load_nice, share=service.load_share_percent / 100
        )
        stores = Stores(service.stores, policy=UriPolicy(file_roots=service.file_roots or ()))
        stopping.push_async_callback(asyncio.to_thread, stores.close)
        watcher = Watcher()
        stopping.push_async_callback(watcher.close)
        copies = _copies(service)
        catalog = Catalog(
            service=service,
            registry=registry,
            loader=_pipeline(service, device, stores, copies),
            threads=threads,
            dispatcher=dispatcher,
            metrics=metrics,
            watcher=watcher,
            rng=random.Random(),  # noqa: S311  spreads polls, keeps no secret
            copies=copies,
        )
        stopping.push_async_callback(catalog.close)
        await catalog.apply(settings)
        # Beside the first loads, which read and check meanwhile.
        await asyncio.to_thread(device.prepare)
        _keep_for_good()
        metrics.config_applied(ok=True, hash=settings_hash(settings))
        configuration: Callable[[], ConfigurationStatus] = ConfigurationStatus
        if config_path is not None:
            config = ConfigWatch(
                config_path,
                load=load_settings,
                catalog=catalog,
                watcher=watcher,
                threads=threads,
                metrics=metrics,
            )
            stopping.push_async_callback(config.close)
            config.start()
            configuration = config.status
        http = create_http(
            registry=registry,
            health=health,
            metrics=metrics,
            reloads=catalog,
            settings=service,
            default_index=catalog.default_index,
            configuration=configuration,
        )
        server = HttpServer(http, sock=sock, settings=service, metrics=metrics)
        StopSignals(health=health, stop=server.stop, delay=service.drain_delay).install()
        serving = asyncio.create_task(server.serve(), name="http")
        listening = asyncio.create_task(server.started.wait(), name="listening")
        await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
        if listening.done():
            log.info("serving", url=_url(sock), indexes=registry.names())
            started(_url(sock))
        listening.cancel()
        await serving
        log.info("stopping")
    log.info("stopped")


def _copies(service: ServiceSettings) -> Copies | None:
    return Copies(Path(service.cache_dir)) if service.cache_dir is not None else None


def _pipeline(
    service: ServiceSettings, device: EngineFactory, stores: Stores, copies: Copies | None
) -> Pipeline:
    limit = None if service.memory_limit is None else int(service.memory_limit)
    return Pipeline(
        storage=stores,
        factory=device,
        admission=Admission(MemoryProbe(limit=limit)),
        copies=copies,
    )


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
