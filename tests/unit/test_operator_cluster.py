"""Faults of an API server, or of what stands in front of it, that a real one does not show on demand."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from kosine_operator.api_errors import ApiError, Throttled, Unreachable
from kosine_operator.cluster import Cluster
from kosine_operator.kinds import BY_NAME, Ref

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

SERVICE = Ref(BY_NAME["Service"], "shop", "items")


@contextlib.asynccontextmanager
async def cluster_of(answer: Answer, *, within: float = 10.0) -> AsyncIterator[Cluster]:
    """A cluster whose API server answers everything alike."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = Configuration(host=f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        async with ApiClient(configuration) as client:
            yield Cluster(client, within=within)
    finally:
        await runner.cleanup()


async def busy(_: web.Request) -> web.Response:
    """429 that says for how long."""
    return web.json_response({"message": "too many requests"}, status=429, headers={"Retry-After": "7"})


async def gateway(_: web.Request) -> web.Response:
    """A proxy that reaches nobody."""
    return web.Response(status=502, text="<html>bad gateway</html>")


async def garbage(_: web.Request) -> web.Response:
    """A login page with status 200."""
    return web.Response(text="<html>log in</html>")


async def cut(request: web.Request) -> web.StreamResponse:
    """A connection that ends in the middle of the body."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"metadata": ')
    assert request.transport is not None
    request.transport.abort()
    return response


async def dropped(request: web.Request) -> web.Response:
    """A connection that ends before the answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("answer", [gateway, garbage, cut, dropped])
async def test_an_answer_that_says_nothing_about_the_request_is_no_answer(answer: Answer) -> None:
    """Whoever it came from, the request is made again after the back-off."""
    async with cluster_of(answer) as cluster:
        with pytest.raises(Unreachable, match="get Service shop/items"):
            await cluster.get(SERVICE)


async def test_a_busy_server_is_left_alone_for_as_long_as_it_says() -> None:
    """Nothing asks again by itself, neither we nor the client."""
    async with cluster_of(busy) as cluster:
        with pytest.raises(Throttled) as raised:
            await cluster.get(SERVICE)

    assert 7.0 == raised.value.retry_after


async def test_a_server_that_hangs_is_given_up() -> None:
    """A request ends within its time."""
    held = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await held.wait()
        return web.Response()

    async with cluster_of(hang, within=0.2) as cluster:
        with pytest.raises(Unreachable):
            await cluster.get(SERVICE)
        held.set()


async def test_every_write_waits_for_its_permit_and_no_read_does() -> None:
    """What holds no lease writes nothing."""
    methods = []

    async def note(request: web.Request) -> web.Response:
        methods.append(request.method)
        return web.json_response({})

    async def refuse() -> None:
        raise ApiError("not now")

    async with cluster_of(note) as cluster:
        held = cluster.permitted_by(refuse)
        manifest = {"metadata": {"name": "items", "namespace": "shop"}}
        await held.get(SERVICE)
        for write in (
            held.apply(SERVICE, manifest, uid=None),
            held.apply_status(SERVICE, {}, uid="1"),
            held.annotate(SERVICE, {}, uid="1"),
            held.delete(SERVICE, uid="1"),
            held.create(SERVICE.kind, manifest),
            held.replace(SERVICE, manifest),
        ):
            with pytest.raises(ApiError, match="not now"):
                await write

    assert ["GET"] == methods
