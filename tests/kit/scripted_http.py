"""An HTTP server that answers as the test says, over real sockets: for what a service should never do."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.kit.stream_server import stream_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ("DROP", "ScriptedHttp", "http_response", "scripted_http")

DROP = b"drop"
"""Close the connection instead of answering."""


def http_response(body: bytes = b"{}", *, status: str = "200 OK", headers: str = "") -> bytes:
    """Complete bytes of an answer; `headers` are whole lines."""
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


@dataclass(slots=True)
class ScriptedHttp:
    """Answers request number n, counted over all connections, with `script(n)`; awaits `gate` first."""

    script: Callable[[int], bytes]
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    paths: list[bytes] = field(default_factory=list)
    """First line and body of every request."""
    heads: list[bytes] = field(default_factory=list)
    """All of what came before each body."""
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                number = len(self.paths)
                self.paths.append(head.split(b"\r\n")[0] + b" " + body)
                self.heads.append(head)
                await self.gate.wait()
                answer = self.script(number)
                if answer == DROP:
                    return
                writer.write(answer)


@asynccontextmanager
async def scripted_http(script: Callable[[int], bytes]) -> AsyncIterator[ScriptedHttp]:
    """The server, its gate open, on a free loopback port."""
    served = ScriptedHttp(script)
    served.gate.set()
    async with stream_server(served.serve) as served.port:
        yield served
