"""The kubelet's client: requests, and lists that are followed for ever.

An API server that is away is waited for: pods go on without it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.kit.control_plane.kubelet.settings import KubeletSettings

__all__ = ("AWAY", "Api", "ApiRefused", "Changed", "Listed", "connected")

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"


class ApiRefused(Exception):
    """The API server answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


AWAY = (aiohttp.ClientError, OSError, TimeoutError)
"""What a request raises when there was no answer."""


@dataclass(frozen=True, slots=True)
class Listed:
    """All there is: whatever is not in it is gone."""

    items: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """One object: ADDED, MODIFIED or DELETED."""

    kind: str
    item: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Api:
    """One session with the API server."""

    session: aiohttp.ClientSession
    url: str

    async def request(
        self, method: str, path: str, body: object = None, *, content_type: str = "application/json"
    ) -> dict[str, Any]:
        """The decoded answer; ApiRefused at 400 or more, one of AWAY when there is none."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type}
        async with self.session.request(method, self.url + path, data=data, headers=headers) as answer:
            decoded: dict[str, Any] = await answer.json(content_type=None)
            if answer.status >= 400:
                raise ApiRefused(answer.status, f"{method} {path}: {decoded.get('message')}")
            return decoded

    async def follow(self, path: str) -> AsyncIterator[Listed | Changed]:
        """List, then watch; list again whenever the watch ends. Never ends."""
        while True:
            try:
                listed = await self.request("GET", path)
                yield Listed(tuple(listed["items"]))
                since = listed["metadata"]["resourceVersion"]
                async for change in self._watch(path, since):
                    yield change
            except (*AWAY, ApiRefused):
                await asyncio.sleep(0.2)

    async def _watch(self, path: str, since: str) -> AsyncIterator[Changed]:
        joint = "&" if "?" in path else "?"
        async with self.session.get(f"{self.url}{path}{joint}watch=1&resourceVersion={since}") as answer:
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":  # the resourceVersion is too old
                    return
                yield Changed(event["type"], event["object"])


@asynccontextmanager
async def connected(settings: KubeletSettings) -> AsyncIterator[Api]:
    """A session whose requests have no total time limit: watches last."""
    trusted = ssl.create_default_context(cafile=settings.authority)
    async with aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {settings.token}"},
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
        connector=aiohttp.TCPConnector(ssl=trusted, limit=0),
        read_bufsize=2**24,  # a watch event is one line
    ) as session:
        yield Api(session, settings.url)
