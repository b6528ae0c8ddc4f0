"""The little of ASGI that is spoken here, as types, without a framework."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

__all__ = ("ABANDONED", "BODY_ARRIVED", "ASGIApp", "Message", "Receive", "Scope", "Send")

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

ABANDONED = "kosine.abandoned"
"""Scope extension: a callable that tells whether the client's connection is gone. Other servers lack it."""

BODY_ARRIVED = "kosine.body_arrived"
"""Scope extension: a callable that tells whether the whole body is here. Other servers lack it."""
