"""What `kubectl logs [-f]` reads through the API server."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from tests.kit.control_plane.namespaces import NODE_ADDRESS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.kit.control_plane.kubelet.pod import PodRunner
    from tests.kit.control_plane.kubelet.settings import KubeletSettings

__all__ = ("logs_server",)


@asynccontextmanager
async def logs_server(
    settings: KubeletSettings, find: Callable[[str, str], PodRunner | None]
) -> AsyncIterator[int]:
    """Serve the logs of the pods that `find(namespace, name)` knows; the port."""

    async def logs(request: web.Request) -> web.StreamResponse:
        match = request.match_info
        pod = find(match["namespace"], match["pod"])
        if pod is None:
            raise web.HTTPNotFound(text="no such pod on this node")
        answer = web.StreamResponse()
        await answer.prepare(request)
        path, position = pod.folder / f"{match['container']}.log", 0
        follow = request.query.get("follow") == "true"
        while True:
            alive = pod.running
            if path.exists():
                with path.open("rb") as log:
                    log.seek(position)
                    data = log.read()
                position += len(data)
                await answer.write(data)
            if not (follow and alive):
                return answer
            await asyncio.sleep(0.1)

    application = web.Application()
    application.router.add_get("/containerLogs/{namespace}/{pod}/{container}", logs)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(settings.certificate, settings.certificate_key)
        site = web.TCPSite(runner, NODE_ADDRESS, 0, ssl_context=context)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
