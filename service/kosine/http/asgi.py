"""The little of ASGI that is spoken here, as types, and what our own server adds to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from kosine.http.problems import Reply

__all__ = ("ASGIApp", "Connection", "Message", "Receive", "Scope", "Send", "connection_of", "extensions_of")

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_CONNECTION = "kosine.connection"


class Connection(Protocol):
    """What our server tells of the connection that a request came by, at half the cost of ASGI's messages."""

    def is_gone(self) -> bool:
        """Whether the client has closed it."""

    def body_of(self, scope: Scope) -> bytes | None:
        """The whole body of this request, where it is here already; None: ask `receive`."""

    def answer(self, scope: Scope, reply: Reply) -> bool:
        """Send the whole answer of this request; False where it must go by `send`: nothing was done."""


def connection_of(scope: Scope) -> Connection | None:
    """None under another server."""
    extensions = scope.get("extensions")
    return extensions.get(_CONNECTION) if extensions else None


def extensions_of(connection: Connection) -> dict[str, Any]:
    """What makes `connection_of` find it."""
    return {_CONNECTION: connection}
