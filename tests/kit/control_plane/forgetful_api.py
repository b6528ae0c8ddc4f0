"""An API server that keeps things from those who watch: a proxy before the real one.

Every request and answer passes as it is, but for events of a watch while `forgets` says so. Clients take it
by `kubeconfig`: plain HTTP, with the admin's token. It runs in a thread, so that tests may block.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.kit.control_plane.access import Access
    from tests.kit.control_plane.cluster import Namespace

__all__ = ("ForgetfulApi", "forgetful_api")

_LONGEST_LINE = 2**22
_BY_HOP = ("Connection", "Content-Length", "Host", "Keep-Alive", "Transfer-Encoding")


@dataclass(slots=True, eq=False)
class ForgetfulApi:
    """Stands before the API server that the admin's `access` leads to."""

    access: Access
    kubeconfig: Path
    forgets: bool = False
    forgotten: list[tuple[str, str, str]] = field(default_factory=list)
    """Type, kind and name of the events that nobody was told."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of everything that was answered, watches excepted."""

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[int]:
        """The loopback port where it listens."""
        trusted = ssl.create_default_context(cafile=str(self.access.authority))
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trusted, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            read_bufsize=_LONGEST_LINE,
            trust_env=False,
        ) as session:

            async def answer(request: web.Request) -> web.StreamResponse:
                return await self._answer(session, request)

            app = web.Application(client_max_size=2**24)
            app.router.add_route("*", "/{path:.*}", answer)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                yield runner.addresses[0][1]
            finally:
                await runner.cleanup()

    async def _answer(self, session: aiohttp.ClientSession, request: web.Request) -> web.StreamResponse:
        async with session.request(
            request.method,
            self.access.url + request.path_qs,
            headers=_passed_on(request.headers),
            data=await request.read() or None,
        ) as real:
            answer = web.StreamResponse(status=real.status, headers=_passed_on(real.headers))
            with contextlib.suppress(ConnectionError):  # of a client that has gone
                await answer.prepare(request)
                await self._pass_on(request, real, answer)
        return answer

    async def _pass_on(
        self, request: web.Request, real: aiohttp.ClientResponse, answer: web.StreamResponse
    ) -> None:
        if "watch" in request.query:
            async for line in real.content:
                if not self._forgets(line):
                    await answer.write(line)
        else:
            await answer.write(await real.read())
            self.asked.append((request.method, request.path))
        await answer.write_eof()

    def _forgets(self, line: bytes) -> bool:
        event = json.loads(line)
        if not self.forgets or event["type"] not in ("ADDED", "MODIFIED", "DELETED"):
            return False
        found = event["object"]
        self.forgotten.append((event["type"], found["kind"], found["metadata"]["name"]))
        return True


def _passed_on(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in _BY_HOP}


@contextlib.contextmanager
def forgetful_api(namespace: Namespace) -> Iterator[ForgetfulApi]:
    """A proxy before the API server of this namespace's cluster; it forgets nothing so far."""
    admin = namespace.plane.admin
    api = ForgetfulApi(admin, namespace.plane.files.folder / f"{namespace.name}-forgetful.kubeconfig")
    ready, stopped, loops = threading.Event(), asyncio.Event(), []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        async with api.served() as port:
            replace(admin, url=f"http://127.0.0.1:{port}").write_kubeconfig(api.kubeconfig)
            ready.set()
            await stopped.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="forgetful-api")
    thread.start()
    assert ready.wait(30)
    try:
        yield api
    finally:
        loops[0].call_soon_threadsafe(stopped.set)
        thread.join()
