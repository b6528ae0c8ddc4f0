"""Starting and stopping the server (what row H20 asks of the HTTP side)."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from kosine.errors import StartupError
from kosine.http.server import HttpServer, bind
from kosine.metrics import Metrics
from kosine.settings import Duration, ServiceSettings
from tests.kit.engines import NumpyEngine, matrix_of
from tests.kit.http_service import http_service, query, until

if TYPE_CHECKING:
    from kosine.http.asgi import Receive, Scope, Send


async def test_a_stopped_server_finishes_what_is_in_flight_and_accepts_nothing_more() -> None:
    """The query in the engine is answered, with the end of its connection; a new connection is refused."""
    gate = threading.Event()
    engine = NumpyEngine(matrix=matrix_of(np.eye(4)), hold=gate)
    async with http_service() as service, service.client() as client:
        service.publish(engine=engine)
        assert service.server is not None
        answering = asyncio.create_task(client.post("/indexes/items/cos", json=query(1, 0, 0, 0)))
        await until(lambda: len(engine.batches) == 1)
        idle, _ = await service.connect()
        await until(lambda: service.connections == 2)
        service.server.stop()

        assert b"" == await idle.read()
        with pytest.raises(httpx.ConnectError):
            async with service.client() as late:
                await late.get("/livez")
        gate.set()
        answer = await answering
        assert (200, "close") == (answer.status_code, answer.headers["connection"])


async def test_what_outlives_the_grace_is_told_that_the_service_stops() -> None:
    """503 with a time to come back, not a reset."""
    gate = threading.Event()
    engine = NumpyEngine(matrix=matrix_of(np.eye(4)), hold=gate)
    async with http_service(grace=Duration(0.1)) as service, service.client() as client:
        service.publish(engine=engine)
        assert service.server is not None
        answering = asyncio.create_task(client.post("/indexes/items/cos", json=query(1, 0, 0, 0)))
        await until(lambda: len(engine.batches) == 1)
        service.server.stop()
        answer = await answering
        gate.set()

        assert (503, "shutting_down") == (answer.status_code, answer.json()["code"])
        assert "retry-after" in answer.headers


async def test_a_half_sent_request_does_not_hold_up_a_stop() -> None:
    """A head that never ends is nobody's query."""
    loop = asyncio.get_running_loop()
    async with http_service() as service:
        reader, writer = await service.connect()
        writer.write(b"POST /indexes/items/cos HTTP/1.1\r\n")
        await until(lambda: service.connections == 1)
        assert service.server is not None
        started = loop.time()
        service.server.stop()
        assert b"" == await reader.read()
    assert loop.time() - started < 2.0


async def test_clients_are_refused_until_the_server_listens() -> None:
    """Binding takes the port; only serving accepts."""
    sock = bind("127.0.0.1", 0)
    host, port = sock.getsockname()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, port)
    sock.close()


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that is never asked."""
    raise AssertionError(scope, receive, send)


async def test_a_server_that_was_stopped_before_it_served_returns() -> None:
    """Stop is stop, whenever it comes."""
    server = HttpServer(nothing, sock=bind("127.0.0.1", 0), settings=ServiceSettings(), metrics=Metrics())
    server.stop()
    async with asyncio.timeout(5):
        await server.serve()


def test_a_taken_port_is_a_startup_error_that_names_it() -> None:
    """What to change stands in the message."""
    first = bind("127.0.0.1", 0)
    first.listen()
    _, port = first.getsockname()
    with pytest.raises(StartupError, match=rf"127\.0\.0\.1:{port}.*service\.port"):
        bind("127.0.0.1", port)
    first.close()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_of_another_machine_is_a_startup_error(host: str) -> None:
    """A name that does not resolve, an address that is not ours."""
    with pytest.raises(StartupError, match=r"service\.host"):
        bind(host, 0)


async def test_a_port_taken_between_bind_and_listen_is_a_startup_error() -> None:
    """Two processes may bind; only one may listen."""
    first = bind("127.0.0.1", 0)
    host, port = first.getsockname()
    second = bind(host, port)
    first.listen()
    with pytest.raises(StartupError, match=str(port)):
        await HttpServer(nothing, sock=second, settings=ServiceSettings(), metrics=Metrics()).serve()
    first.close()
