"""An HTTP server that answers as the test says, over real sockets: for what a service should never do."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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
    connections: int = 0
    open: dict[asyncio.StreamWriter, asyncio.Task[None]] = field(default_factory=dict)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.open[writer] = task
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                number = len(self.paths)
                self.paths.append(head.split(b"\r\n")[0] + b" " + body)
                await self.gate.wait()
                answer = self.script(number)
                if answer == DROP:
                    return
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            del self.open[writer]
            writer.close()

    async def hang_up(self) -> None:
        """Close every connection, and wait until nobody serves one."""
        tasks = [*self.open.values()]
        for writer in self.open:
            writer.close()
        await asyncio.gather(*tasks)


@asynccontextmanager
async def scripted_http(script: Callable[[int], bytes]) -> AsyncIterator[ScriptedHttp]:
    """The server, its gate open, on a free loopback port."""
    served = ScriptedHttp(script)
    served.gate.set()
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        served.gate.set()
        server.close()
        await served.hang_up()
