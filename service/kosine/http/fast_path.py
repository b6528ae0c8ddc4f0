"""The thin door to /cos, in front of the framework, which would cost as much again as the whole rest.

Only `POST` to exactly `/cos` or `/indexes/{name}/cos` enters here; the rest goes to the documented routes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kosine.http.asgi import connection_of
from kosine.http.problems import CLOSE

if TYPE_CHECKING:
    from collections.abc import Callable

    from kosine.http.asgi import ASGIApp, Receive, Scope, Send
    from kosine.http.cos import CosEndpoint
    from kosine.serving.health import Health

__all__ = ("FastPath",)

_BEFORE, _AFTER = "/indexes/", "/cos"
_SLASHES = _BEFORE.count("/") + _AFTER.count("/")


class FastPath:
    """ASGI application: /cos to `endpoint`, the rest to `routes`."""

    def __init__(
        self,
        *,
        endpoint: CosEndpoint,
        routes: ASGIApp,
        health: Health,
        default_index: Callable[[], str | None],
    ) -> None:
        self._endpoint = endpoint
        self._routes = routes
        self._health = health
        self._default_index = default_index

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._routes(scope, receive, send)
        path: str = scope["path"]
        if path == _AFTER:
            name = self._default_index()
        elif path.startswith(_BEFORE) and path.endswith(_AFTER) and _is_one_segment(path, scope):
            name = path[len(_BEFORE) : -len(_AFTER)]
        else:
            return await self._routes(scope, receive, send)
        reply = await self._endpoint.answer(name, scope, receive)
        if self._health.draining:
            reply.headers.append(CLOSE)
        connection = connection_of(scope)
        if connection is not None and connection.answer(scope, reply):
            return None
        await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        await send({"type": "http.response.body", "body": reply.body})
        return None


def _is_one_segment(path: str, scope: Scope) -> bool:
    """Whether what stands between is one segment; an encoded slash makes an unknown name, not a path."""
    end = len(path) - len(_AFTER)
    if end <= len(_BEFORE):
        return False
    return "/" not in path[len(_BEFORE) : end] or scope.get("raw_path", b"").count(b"/") == _SLASHES
