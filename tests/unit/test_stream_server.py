"""The tests' own server of streams."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from typing import TYPE_CHECKING

from tests.kit.stream_server import stream_server

if TYPE_CHECKING:
    import pytest


async def _until_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    await reader.read()


async def test_no_connection_outlives_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped at any turn of the loop after clients came, it leaves nothing for the garbage collector."""
    left: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: left.append(unraisable.exc_value))
    for turns in range(8):
        async with stream_server(_until_the_end) as port:
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
            for _ in range(turns):
                await asyncio.sleep(0)
        for client in clients:
            client.close()
    gc.collect()
    assert [] == left


async def test_a_connection_ends_with_its_service() -> None:
    """What `serve` returns from is closed after what it wrote."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")

    async with stream_server(greet) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert b"hello" == await reader.read()
        writer.close()
        await writer.wait_closed()
