"""What every answer of the documented routes carries: its request id, and `Connection: close` in a drain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kosine.errors import NotFound, RequestError, ShuttingDown
from kosine.http.problems import CLOSE, problem_reply

if TYPE_CHECKING:
    from kosine.http.asgi import ASGIApp, Message, Receive, Scope, Send
    from kosine.http.headers import RequestIds
    from kosine.serving.health import Health

__all__ = ("REQUEST_ID", "Envelope")

REQUEST_ID = "request_id"
"""Key of the id in `scope["state"]`."""

_LONGEST_PATH = 1024
"""Longer than any route; the framework remembers the paths it has routed, so it is not shown others."""


class Envelope:
    """ASGI middleware around the routes."""

    def __init__(self, app: ASGIApp, *, health: Health, request_ids: RequestIds) -> None:
        self._app = app
        self._health = health
        self._request_ids = request_ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and complete the head of the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._request_ids.of(dict(scope["headers"]))
        scope.setdefault("state", {})[REQUEST_ID] = request_id
        sealed = _Sealed(send, request_id, draining=self._health.draining)
        if len(scope["path"]) > _LONGEST_PATH:
            await sealed.refuse(NotFound(f"no path has more than {_LONGEST_PATH} characters"))
            return
        try:
            await self._app(scope, receive, sealed.send)
        except asyncio.CancelledError:
            if sealed.started:
                raise
            # Only a server out of grace cancels a request: its client is told, then the task ends.
            await sealed.refuse(ShuttingDown("the service is stopping; ask another replica", retry_after=1))


class _Sealed:
    """One answer on its way out."""

    def __init__(self, send: Send, request_id: str, *, draining: bool) -> None:
        self._send = send
        self._request_id = request_id
        self._draining = draining
        self.started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = list(message.get("headers", ()))
            if not any(name == b"x-request-id" for name, _ in headers):
                headers.append((b"x-request-id", self._request_id.encode("ascii")))
            if self._draining:
                headers.append(CLOSE)
            message = {**message, "headers": headers}
        await self._send(message)

    async def refuse(self, error: RequestError) -> None:
        reply = problem_reply(error, request_id=self._request_id)
        await self.send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
        await self.send({"type": "http.response.body", "body": reply.body})
