"""uvicorn's HTTP/1.1 protocol with the limits it leaves to a proxy that may not be there.

Guarantees, per connection: a request head arrives within `header_timeout` and is small; bytes that are not
one clear request get one refusal and the end of the connection, never two answers; an answer that nobody
takes within `send_timeout` is dropped. The application learns from the scope when its client is gone.

What ends badly ends gently: the answer is written, our half is closed, and what the peer still sends is
thrown away for a while. Closing at once would reset the connection and lose the answer on its way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from kosine.errors import BadRequest, RequestError, TooManyConnections
from kosine.http.asgi import extensions_of
from kosine.http.headers import too_large
from kosine.http.heads import MAX_HEAD_BYTES, check_count, check_size, is_chunked
from kosine.http.outlet import Outlet
from kosine.http.problems import CLOSE, printable, problem_reply

if TYPE_CHECKING:
    import asyncio

    from uvicorn.config import Config
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
    from uvicorn.server import ServerState

    from kosine.http.asgi import Scope
    from kosine.http.failure_log import FailureLog
    from kosine.http.headers import RequestIds
    from kosine.http.problems import Reply
    from kosine.metrics import Metrics

__all__ = ("GuardedProtocol", "Limits")

MAX_PIPELINED = 256
"""Requests one connection may have waiting; each costs memory before it has cost its sender an answer."""

_FRAMING = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection may take; seconds and bytes."""

    header_timeout: float
    send_timeout: float
    body_limit: int
    max_connections: int

    @property
    def chunked_limit(self) -> int:
        """Bytes of a chunked message with its framing and trailers, which nobody else counts."""
        return 2 * self.body_limit + _FRAMING


class _Trailers(list[tuple[bytes, bytes]]):
    """Keeps none: nobody reads them, and there may be millions."""

    def append(self, _: tuple[bytes, bytes]) -> None:
        pass


class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
        failures: FailureLog,
        metrics: Metrics,
        request_ids: RequestIds,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._failures = failures
        self._metrics = metrics
        self._request_ids = request_ids
        self._outlet: Outlet
        self._extensions: dict[str, Any] = {}
        self._refusal: RequestError | None = None
        self._ended = False
        self._reading_head = False
        self._reading_body = False
        self._upgrading = False
        self._chunked = False
        self._chunk = 0
        self._head_least = 0
        self._head_most = 0
        self._body_seen = 0
        self._resting_since: float | None = None
        self._head_deadline: asyncio.TimerHandle | None = None
        self._send_deadline: asyncio.TimerHandle | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Start the clock: a connection that never sends is closed as well."""
        super().connection_made(transport)
        self.transport = self._outlet = Outlet(transport)
        self._extensions = extensions_of(self)
        if len(self.connections) > self._limits.max_connections:
            self._refuse(TooManyConnections("as many connections are open as allowed; retry", retry_after=1))
            transport.close()
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave no timer behind."""
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        self._head_arrived()
        self._cancel_send_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and see to it that more comes in time."""
        if self._ended:
            return
        self._unset_keepalive_if_required()
        if self._reading_body and self._chunked:
            self._body_seen += len(data)
            if self._body_seen > self._limits.chunked_limit:
                self._refuse(too_large(self._limits.body_limit))
                return
        try:
            self._feed(data)
            if self._reading_head:
                self._check_unfinished_head(len(data))
        except httptools.HttpParserError as error:
            self._refuse(self._refusal or BadRequest(f"expected HTTP/1.1: {printable(str(error))}"))
        except RequestError as refusal:
            self._refuse(refusal)
        if self._in_flight() is None:
            self._expect_head()

    def _feed(self, data: bytes) -> None:
        while data:
            self._chunk = len(data)
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]
            else:
                return

    # Messages: callbacks of the parser

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self.scope["extensions"] = self._extensions
        self._reading_head = True
        self._head_least = self._head_most = 0

    def on_headers_complete(self) -> None:
        """Refuse what is too large or unclear before anything starts to answer it."""
        self._head_arrived()
        try:
            self._check_head()
        except RequestError as refusal:
            self._refusal = refusal  # the parser stops, and raises an error of its own
            raise
        self._reading_head = False
        self._reading_body = True
        self._body_seen = 0
        if self.parser.should_upgrade():
            self._upgrading = True
            return
        super().on_headers_complete()
        self.headers = _Trailers()

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        self._reading_body = False
        if not self._upgrading:
            super().on_message_complete()

    def _check_head(self) -> None:
        self._chunked = is_chunked(self.headers, version=self.parser.get_http_version())
        check_count(self.headers)
        # What fits the limit with whatever else arrived beside it needs no sum.
        if self._head_most + self._chunk > MAX_HEAD_BYTES:
            check_size(self.url, self.headers)
        if len(self.pipeline) >= MAX_PIPELINED:
            raise BadRequest(f"expected at most {MAX_PIPELINED} requests waiting on one connection")

    def _check_unfinished_head(self, arrived: int) -> None:
        """The first chunk may have begun with another request's body; later ones are all head."""
        if self._head_most:
            self._head_least += arrived
        self._head_most += arrived
        check_count(self.headers)
        check_size(b"", more=self._head_least)

    def _without_upgrade(self) -> bytes:
        """The head as if nobody had asked for another protocol, for a new parser (RFC 9110, 7.8).

        Java's HttpClient asks for h2c with its first request. The parser takes what follows such a head for
        that other protocol, and a body would become the next request.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise BadRequest("expected a request for this service; it is not a proxy")
        self._upgrading = self._reading_body = False
        head = [method, b" ", self.url, b" HTTP/", self.parser.get_http_version().encode("ascii"), b"\r\n"]
        for name, value in self.headers:
            if name not in {b"upgrade", b"connection"}:
                head += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        return b"".join([*head, b"\r\n"])

    # What the application asks and tells without messages: `Connection`

    def is_gone(self) -> bool:
        """See `Connection.is_gone`."""
        return self._outlet.is_closing()

    def body_of(self, scope: Scope) -> bytes | None:
        """See `Connection.body_of`."""
        cycle = self.cycle
        if cycle.scope is not scope or cycle.more_body or cycle.disconnected:
            return None
        return bytes(cycle.body)

    def answer(self, scope: Scope, reply: Reply) -> bool:
        """See `Connection.answer`: what uvicorn does with the two messages of an answer, in one step.

        The headers are ours and known to be sound; uvicorn's two searches in each take longer than a write.
        """
        cycle = self.cycle
        if cycle.scope is not scope or cycle.response_started or cycle.disconnected or self.flow.write_paused:
            return False
        if CLOSE in reply.headers:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            reply.headers.append(CLOSE)
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        self._outlet.write_whole(self._encoded(reply))
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
        return True

    def _encoded(self, reply: Reply) -> bytes:
        head = [STATUS_LINE[reply.status]]
        for name, value in (*self.server_state.default_headers, *reply.headers):
            head += (name, b": ", value, b"\r\n")
        return b"".join((*head, b"\r\n", reply.body))

    # Answers

    def on_response_complete(self) -> None:
        """See that the answer is taken, and that the next head comes in time once it has begun."""
        self._outlet.flush()
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
        else:
            self._rest()
        if self.transport.is_closing():
            self._expect_reader()
        elif self._in_flight() is None and (self._reading_head or self._reading_body):
            # The head of the next request, or what is left of a body that was refused by its head.
            self._unset_keepalive_if_required()
            self._expect_head()

    def pause_writing(self) -> None:
        """The peer is not taking its answer."""
        super().pause_writing()
        self._expect_reader()

    def resume_writing(self) -> None:
        """The peer has taken it."""
        self._cancel_send_deadline()
        super().resume_writing()

    def _refuse(self, refusal: RequestError) -> None:
        """End the connection; tell why, unless that would be a second answer or the wrong request's."""
        if self._ended:
            return
        self._ended = True
        request_id = self._request_ids.new()
        self._failures.write(refusal, request_id=request_id)
        self._metrics.connection_refused(refusal.code)
        cycle = self._in_flight()
        if cycle is None:
            if not self._reading_body:
                self._write(refusal, request_id)
        elif not self._reading_body:
            # What is behind a good request is bad: answer the good one, then close.
            cycle.keep_alive = False
            return
        elif not self.pipeline and not cycle.response_started:
            cycle.disconnected = True
            cycle.message_event.set()
            self._write(refusal, request_id)
        self._linger()

    def _in_flight(self) -> RequestResponseCycle | None:
        """The newest request, while it has no whole answer."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first, whatever its type says
        return None if cycle is None or cycle.response_complete else cycle

    def _write(self, refusal: RequestError, request_id: str) -> None:
        reply = problem_reply(refusal, request_id=request_id, close=True)
        self._outlet.write_whole(self._encoded(reply))

    def _linger(self) -> None:
        self._unset_keepalive_if_required()
        self._expect_head()
        self.transport.write_eof()

    # Deadlines

    def _expect_head(self) -> None:
        if self._head_deadline is None:
            self._head_deadline = self.loop.call_later(self._limits.header_timeout, self._hang_up)

    def _head_arrived(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _expect_reader(self) -> None:
        if self._send_deadline is None:
            self._send_deadline = self.loop.call_later(self._limits.send_timeout, self.transport.abort)

    def _cancel_send_deadline(self) -> None:
        if self._send_deadline is not None:
            self._send_deadline.cancel()
            self._send_deadline = None

    def _rest(self) -> None:
        """What uvicorn does after an answer, with one timer a connection rather than one a request."""
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._resting_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._wake_after(self.timeout_keep_alive)

    def _wake_after(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        """There is something to do; the timer finds that out by itself."""
        self._resting_since = None

    def timeout_keep_alive_handler(self) -> None:
        """Nothing was sent for long, or not for so long; an answer still unread by then will not be read."""
        self.timeout_keep_alive_task = None
        if self._resting_since is None:
            return
        left = self._resting_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._wake_after(left)
        else:
            self._hang_up()

    def _hang_up(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()
