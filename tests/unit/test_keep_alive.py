"""How long a connection without a request is kept, in virtual time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from kosine.http.failure_log import FailureLog
from kosine.http.headers import RequestIds
from kosine.http.protocol import GuardedProtocol, Limits
from kosine.metrics import Metrics

if TYPE_CHECKING:
    from kosine.http.asgi import Receive, Scope, Send

pytestmark = pytest.mark.looptime(start=0)

KEPT = 75
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Wire(asyncio.Transport):
    """Takes everything at once, and remembers when it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed_at: float | None = None

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.sent += bytes(data)

    def is_closing(self) -> bool:
        return self.closed_at is not None

    def close(self) -> None:
        self.closed_at = self.closed_at or asyncio.get_running_loop().time()

    def get_write_buffer_size(self) -> int:
        return 0

    def resume_reading(self) -> None:
        """Never paused."""


async def answering_after_a_second(scope: Scope, _receive: Receive, send: Send) -> None:
    """An application that takes its time."""
    assert "http" == scope["type"]
    await asyncio.sleep(1)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def connect() -> tuple[GuardedProtocol, Wire]:
    config = uvicorn.Config(
        cast("Any", answering_after_a_second), ws="none", lifespan="off", timeout_keep_alive=KEPT
    )
    config.load()
    protocol = GuardedProtocol(
        config,
        ServerState(),
        {},
        asyncio.get_running_loop(),
        limits=Limits(header_timeout=10, send_timeout=10, body_limit=1024, max_connections=8),
        failures=FailureLog(),
        metrics=Metrics(),
        request_ids=RequestIds(),
    )
    wire = Wire()
    protocol.connection_made(wire)
    return protocol, wire


@pytest.mark.parametrize(
    ("asked_at", "closed_at"),
    [((0,), 1 + KEPT), ((0, 60), 61 + KEPT), ((0, 60, 120), 121 + KEPT), ((0, 75), 76 + KEPT)],
)
async def test_a_connection_is_kept_so_long_after_its_last_answer(
    asked_at: tuple[float, ...], closed_at: float
) -> None:
    """However many requests came before, and also when the next one comes in the last moment."""
    protocol, wire = connect()
    now = asyncio.get_running_loop().time
    for at in asked_at:
        await asyncio.sleep(at - now())
        protocol.data_received(REQUEST)
    await asyncio.sleep(closed_at - now() - 0.5)
    assert (None, len(asked_at)) == (wire.closed_at, wire.sent.count(b" 200 OK"))

    await asyncio.sleep(1)

    assert closed_at == wire.closed_at


async def test_a_lost_connection_leaves_no_timer() -> None:
    """Whoever goes away while resting is not woken for."""
    protocol, wire = connect()
    protocol.data_received(REQUEST)
    await asyncio.sleep(2)

    protocol.connection_lost(None)
    closed_at = wire.closed_at
    await asyncio.sleep(2 * KEPT)

    assert (None, closed_at) == (protocol.timeout_keep_alive_task, wire.closed_at)
