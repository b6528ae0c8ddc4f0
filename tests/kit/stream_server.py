"""A server of streams for tests that leaves no connection behind, at whatever point it is stopped.

`asyncio.start_server` forgets a connection that was accepted but not yet served: its socket stays open until
the garbage collector finds it, which is a ResourceWarning in some later test. Stop it while it is accepting
and the tasks in between are cancelled before they own anything.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

__all__ = ("stream_server",)

_TURNS_TO_OPEN = 4
"""Of the loop, from an accepted socket to the call of `serve`."""
_TURNS_TO_CLOSE = 2
"""From an aborted transport to its closed socket."""


@asynccontextmanager
async def stream_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], *, limit: int = 2**16
) -> AsyncIterator[int]:
    """The loopback port where each connection is given to `serve`; at the end those still open are reset.

    `serve` is cancelled then; it need not close what it is given.
    """
    serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(served(reader, writer))
        serving[task] = writer
        task.add_done_callback(serving.pop)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=limit)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        # Accept no more, but close later: connections on their way to `connected` fail with a closed server.
        for listening in server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        await _turns(_TURNS_TO_OPEN)
        server.close()
        ending = dict(serving)
        for task, writer in ending.items():
            task.cancel()
            writer.transport.abort()
        await asyncio.gather(*ending, return_exceptions=True)
        await _turns(_TURNS_TO_CLOSE)


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
