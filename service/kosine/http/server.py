"""uvicorn under the composition root's command: it takes no signals, and stops when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from kosine.errors import StartupError
from kosine.http.failure_log import FailureLog
from kosine.http.headers import RequestIds
from kosine.http.protocol import GuardedProtocol, Limits

if TYPE_CHECKING:
    from collections.abc import Generator

    from kosine.http.asgi import ASGIApp
    from kosine.metrics import Metrics
    from kosine.settings import ServiceSettings

__all__ = ("HttpServer", "bind")

KEEP_ALIVE = 75
"""Seconds an idle connection is kept: more than the 60 s of common load balancers, who should close first."""

_LOOK = 0.01
_LAST_WORDS = 1.0
"""Seconds for the answers of requests that were cut at the end of grace."""


def bind(host: str, port: int) -> socket.socket:
    """Take the address without listening yet: clients are refused until something can answer them.

    Raises StartupError when it cannot be taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(host, port, error) from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise _cannot_listen(host, port, error) from None
    sock.settimeout(0)
    return sock


def _cannot_listen(host: str, port: int, error: OSError) -> StartupError:
    reason = error.strerror or str(error)
    return StartupError(
        f"cannot listen on {host}:{port}: {reason}; choose another address with --host and --port "
        "(service.host and service.port)"
    )


class HttpServer:
    """Serves one application on one socket, in the running event loop."""

    def __init__(
        self, app: ASGIApp, *, sock: socket.socket, settings: ServiceSettings, metrics: Metrics
    ) -> None:
        self._sock = sock
        self._server = _Server(_config(app, settings, metrics), grace=settings.grace)

    @property
    def started(self) -> asyncio.Event:
        """Set once connections are accepted."""
        return self._server.accepting

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._server.server_state.connections)

    async def serve(self) -> None:
        """Listen and answer until `stop` is called and what is in flight is done. Raises StartupError."""
        try:
            await self._server.serve(sockets=[self._sock])
        finally:
            self._sock.close()

    def stop(self) -> None:
        """Accept nothing more; `serve` returns when requests in flight are answered or grace is over."""
        self._server.should_exit = True
        self._server.stopping.set()


def _config(app: ASGIApp, settings: ServiceSettings, metrics: Metrics) -> uvicorn.Config:
    limits = Limits(
        header_timeout=settings.header_timeout,
        send_timeout=settings.send_timeout,
        body_limit=int(settings.body_limit),
        max_connections=settings.max_connections,
    )
    protocol = functools.partial(
        GuardedProtocol, limits=limits, failures=FailureLog(), metrics=metrics, request_ids=RequestIds()
    )
    return uvicorn.Config(
        cast("Any", app),
        http=cast("type[asyncio.Protocol]", protocol),
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
    )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, *, grace: float) -> None:
        super().__init__(config)
        self.grace = grace
        self.accepting = asyncio.Event()
        self.stopping = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals belong to the composition root."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, in our words when it fails."""
        try:
            for sock in sockets or []:
                sock.listen(self.config.backlog)  # uvloop's own listen fails without a word
            await super().startup(sockets)
        except OSError as error:
            address = sockets[0].getsockname() if sockets else ("", 0)
            raise _cannot_listen(address[0], address[1], error) from None
        self.accepting.set()

    async def main_loop(self) -> None:
        """Renew the Date header each second; uvicorn's own loop wakes ten times as often for a flag."""
        while not self.should_exit:
            await self.on_tick(0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), timeout=1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests in flight finish within grace, let those cut then say so, and drop what is left.

        uvicorn's own waits by looking ten times a second, and leaves before the cut requests are told.
        """
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        self._close_idle()
        end = asyncio.get_running_loop().time() + self.grace
        await self._in_flight(until=end)
        for task in self.server_state.tasks:
            task.cancel()
        last = max(end, asyncio.get_running_loop().time() + _LAST_WORDS)
        await self._in_flight(until=last)
        self._close_idle()
        await self._unread(until=last)
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _close_idle(self) -> None:
        for connection in list(self.server_state.connections):
            connection.shutdown()

    async def _in_flight(self, *, until: float) -> None:
        loop = asyncio.get_running_loop()
        while self.server_state.tasks and (left := until - loop.time()) > 0:
            await asyncio.wait(set(self.server_state.tasks), timeout=left)

    async def _unread(self, *, until: float) -> None:
        """Answers that their callers are still taking."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)
        while self.server_state.connections and loop.time() < until:  # noqa: ASYNC110  uvicorn's set tells nobody
            await asyncio.sleep(_LOOK)
