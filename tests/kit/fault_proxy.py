"""What happens between a service and its store: a TCP proxy that spoils answers, request by request.

It speaks just enough HTTP/1.1 to know where a request and its answer end, remembers every request, and asks
`script` what to do with each, in a thread that may block. The proxy runs in a thread too, so tests may block.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.kit.stream_server import stream_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ("Fault", "FaultProxy", "Request", "fault_proxy", "in_turn")


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked."""

    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What becomes of one answer; nothing is spoiled that is not named."""

    delay: float = 0.0
    status: int | None = None
    """Answer this instead of asking the store."""
    headers: dict[str, str] = field(default_factory=dict)
    """Replaces headers of the answer, `content-length` included."""
    body: bytes = b""
    cut_after: int | None = None
    """Close the connection after so many bytes of the body."""
    reset_after: int | None = None
    """Reset it."""
    stall_after: int | None = None
    """Send no more, and keep it open."""
    lost: bool = False
    """Have the store do what it was asked, and reset the connection instead of answering."""
    drip: float | None = None
    """Send one byte of the body in so many seconds."""


@dataclass(slots=True, eq=False)
class FaultProxy:
    """Stands before one store."""

    upstream: tuple[str, int]
    endpoint: str = ""
    script: Callable[[Request], Fault | None] = lambda _: None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    def seen(self) -> list[Request]:
        """The requests so far, which are forgotten."""
        seen, self.requests = self.requests, []
        return seen

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._exchange(reader, writer):
                pass

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, headers = _parse(head)
        if headers.pop("expect", None) is not None:
            head = re.sub(rb"(?i)\r\nexpect:[^\r]*", b"", head)
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        request = Request(method, target, headers)
        self.requests.append(request)
        fault = await asyncio.to_thread(self.script, request) or Fault()
        await asyncio.sleep(fault.delay)
        if fault.status is None:
            status, answered, content = await self._ask(head + body)
        else:
            status, content = f"HTTP/1.1 {fault.status} Spoiled", fault.body
            answered = {"content-length": str(len(content))}
        if fault.lost:
            _reset(writer)
            return False
        answered |= fault.headers
        lines = [status, *(f"{name}: {value}" for name, value in answered.items()), "", ""]
        writer.write("\r\n".join(lines).encode("latin-1"))
        return await _send(writer, reader, b"" if method == "HEAD" else content, fault)

    async def _ask(self, request: bytes) -> tuple[str, dict[str, str], bytes]:
        reader, writer = await asyncio.open_connection(*self.upstream)
        try:
            line, _, rest = request.partition(b"\r\n")
            writer.write(line + b"\r\nConnection: close\r\n" + rest)
            head = await reader.readuntil(b"\r\n\r\n")
            status, _, _ = head.decode("latin-1").partition("\r\n")
            headers = _headers(head)
            content = await reader.read()
        finally:
            writer.transport.abort()
        for hop in ("connection", "keep-alive"):
            headers.pop(hop, None)
        if not request.startswith(b"HEAD"):
            headers["content-length"] = str(len(content))
        return status, headers, content


async def _send(
    writer: asyncio.StreamWriter, reader: asyncio.StreamReader, body: bytes, fault: Fault
) -> bool:
    """Whether the connection goes on."""
    if fault.drip is not None:
        for byte in body:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(fault.drip)
        return True
    ends = (fault.cut_after, fault.reset_after, fault.stall_after)
    sent = next((end for end in ends if end is not None), len(body))
    writer.write(body[:sent])
    await writer.drain()
    if fault.stall_after is not None:
        await reader.read()  # until the client gives up
    if fault.reset_after is not None:
        _reset(writer)
    return not any(end is not None for end in ends)


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _parse(head: bytes) -> tuple[str, str, dict[str, str]]:
    line, _, _ = head.decode("latin-1").partition("\r\n")
    method, target, _ = line.split(" ")
    return method, target, _headers(head)


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.lower(): value.strip() for name, _, value in pairs}


def in_turn(
    *faults: Fault | None, when: Callable[[Request], bool] = lambda _: True
) -> Callable[[Request], Fault | None]:
    """A script: the first request that `when` picks gets the first fault, and so on."""
    left = list(faults)
    return lambda request: left.pop(0) if left and when(request) else None


@contextlib.contextmanager
def fault_proxy(endpoint: str) -> Iterator[FaultProxy]:
    """A proxy before the store at `endpoint`."""
    parts = urlsplit(endpoint)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = FaultProxy((parts.hostname, parts.port))
    ready, stopped, loops = threading.Event(), asyncio.Event(), []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        async with stream_server(proxy.serve, limit=2**20) as port:
            proxy.endpoint = f"http://127.0.0.1:{port}"
            ready.set()
            await stopped.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="fault-proxy")
    thread.start()
    assert ready.wait(30)
    try:
        yield proxy
    finally:
        loops[0].call_soon_threadsafe(stopped.set)
        thread.join()
