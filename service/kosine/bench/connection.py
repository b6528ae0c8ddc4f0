"""One keep-alive HTTP/1.1 connection with at most one request on it: pre-encoded bytes out, callbacks in.

A general client spends ten times as long on a request as this: what is measured should be the service.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Protocol, cast

import httptools
import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("Connection", "Exchange", "Owner")

_OK = 200
_SERVER_TIMING = b"server-timing"


class _Problem(msgspec.Struct):
    code: str = ""


_PROBLEM = msgspec.json.Decoder(_Problem)


class Exchange(Protocol):
    """A request under way, in times of the monotonic clock."""

    request: int
    intended: float
    sent: float


class Owner(Protocol):
    """Who is told what became of a request."""

    def answered(self, connection: Connection, done: float, body: bytes, timing: bytes) -> None:
        """Status 200 came; the connection is free unless it is closing."""

    def refused(self, connection: Connection, done: float, outcome: str) -> None:
        """Another status came; the connection is free unless it is closing."""

    def lost(self, connection: Connection, done: float, outcome: str | None) -> None:
        """The connection is gone, and with it the request if `outcome` says so."""


class Connection(asyncio.Protocol):
    """Implements Exchange for the request it carries."""

    def __init__(self, requests: Sequence[bytes], owner: Owner) -> None:
        self.request = 0
        self.intended = 0.0
        self.sent = 0.0
        self.busy = False
        self.closing = False
        """The server will close it: nothing more may be asked."""
        self._requests = requests
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self._timing = b""
        self._verdict = "connection_lost"

    def ask(self, request: int, due: float | None = None) -> None:
        """Send request number `request`, which was `due` then or is due now; the connection must be free."""
        self.busy = True
        self.request = request
        self.sent = monotonic()
        self.intended = self.sent if due is None else due
        cast("asyncio.Transport", self._transport).write(self._requests[request])

    def drop(self, outcome: str) -> None:
        """Close at once; a request under way fails with `outcome`."""
        self._verdict = outcome
        cast("asyncio.Transport", self._transport).abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.drop("bad_response")

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        del exc
        was_busy, self.busy = self.busy, False
        self._owner.lost(self, monotonic(), self._verdict if was_busy else None)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        if len(name) == len(_SERVER_TIMING) and name.lower() == _SERVER_TIMING:
            self._timing = value

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body += body

    def on_message_complete(self) -> None:
        """Called by the parser."""
        done = monotonic()
        if not self.busy:
            self.drop("bad_response")
            return
        status, body, timing = self._parser.get_status_code(), self._body, self._timing
        self._body = self._timing = b""
        self.busy = False
        if not self._parser.should_keep_alive():
            self.closing = True
            cast("asyncio.Transport", self._transport).close()
        if status == _OK:
            self._owner.answered(self, done, body, timing)
        else:
            self._owner.refused(self, done, _outcome(status, body))


def _outcome(status: int, body: bytes) -> str:
    """Status and, where there is one, the code of the problem."""
    try:
        code = _PROBLEM.decode(body).code
    except msgspec.DecodeError:
        code = ""
    return f"{status} {code}".strip()
