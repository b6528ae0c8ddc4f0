"""Reads a request body: bounded in bytes before it is kept, and in time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kosine.errors import Abandoned, BodyTimeout
from kosine.http.headers import too_large

if TYPE_CHECKING:
    from kosine.http.asgi import Connection, Message, Receive, Scope

__all__ = ("arrived_body", "read_body")


def arrived_body(connection: Connection | None, scope: Scope, *, limit: int) -> bytes | None:
    """The whole body where it came with its head, as small ones do; None: `read_body` it.

    Raises BodyTooLarge.
    """
    body = connection.body_of(scope) if connection is not None else None
    if body is not None and len(body) > limit:
        raise too_large(limit)
    return body


async def read_body(receive: Receive, *, limit: int, seconds: float) -> bytes:
    """The whole body. Raises BodyTooLarge, BodyTimeout, or Abandoned when the client goes away."""
    try:
        async with asyncio.timeout(seconds):
            return await _read(receive, limit)
    except TimeoutError:
        raise BodyTimeout(
            f"the body did not arrive within {seconds:g} s (service.body_timeout)", seconds=seconds
        ) from None


async def _read(receive: Receive, limit: int) -> bytes:
    message = await receive()
    chunks = [_chunk(message)]
    size = len(chunks[0])
    while size <= limit and message.get("more_body", False):
        message = await receive()
        chunks.append(_chunk(message))
        size += len(chunks[-1])
    if size > limit:
        raise too_large(limit)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _chunk(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise Abandoned("the client closed its connection before the end of its body")
    chunk: bytes = message.get("body", b"")
    return chunk
