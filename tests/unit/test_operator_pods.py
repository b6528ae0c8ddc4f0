"""What pods are asked, and what is made of whatever they answer: real servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from kosine_operator.pods import Pods
from kosine_operator.status import IndexReport, LoadFailure, PodReport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

CONFIGURATION: dict[str, Any] = {"hash": "abc", "applied_at": None, "restart_needed": [], "refused": None}
LOADED = {
    "name": "items",
    "state": "available",
    "source": "s3://bucket/items.npy",
    "version": "76991df339c30255",
    "rows": 1000,
    "dim": 64,
    "bytes": 256_000,
    "loaded_at": "2026-11-21T12:00:00Z",
    "last_error": None,
}
FAILED = {
    "name": "users",
    "state": "failed",
    "last_error": {
        "code": "bad_magic",
        "stage": "gate",
        "detail": "not an .npy file",
        "at": "2026-11-21T12:00:01Z",
        "consecutive": 3,
        "facts": {},
    },
}


def json_of(body: object) -> Answer:
    """Always the same."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body)

    return answer


@contextlib.asynccontextmanager
async def service(**routes: Answer) -> AsyncIterator[int]:
    """A server that answers these routes; the value is its port."""
    app = web.Application()
    app.add_routes([web.get(f"/{name}", answer) for name, answer in routes.items()])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def pod(name: str = "items-1", **status: Any) -> dict[str, Any]:
    """A pod that runs and is ready."""
    usual = {
        "phase": "Running",
        "podIP": "127.0.0.1",
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    return {"metadata": {"name": name}, "status": usual | status}


async def asked(port: int, *pods: dict[str, Any], within: float = 10.0) -> tuple[PodReport, ...]:
    """The reports of these pods."""
    async with aiohttp.ClientSession() as session:
        return await Pods(session, port=port, within=within).ask(pods)


async def test_a_pod_tells_its_configuration_and_its_indexes() -> None:
    """As `GET /configuration` and `GET /indexes` answer."""
    answers = {"indexes": [LOADED, FAILED], "default_index": None}
    async with service(configuration=json_of(CONFIGURATION), indexes=json_of(answers)) as port:
        reports = await asked(port, pod())

    loaded_at = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
    failure = LoadFailure(code="bad_magic", detail="not an .npy file", at=loaded_at + dt.timedelta(seconds=1))
    assert (
        PodReport(
            pod="items-1",
            ready=True,
            configuration_hash="abc",
            indexes={
                "items": IndexReport(
                    state="available",
                    version="76991df339c30255",
                    rows=1000,
                    dim=64,
                    bytes=256_000,
                    loaded_at=loaded_at,
                ),
                "users": IndexReport(state="failed", last_error=failure),
            },
        ),
    ) == reports


async def test_a_pod_tells_why_it_does_not_take_its_configuration() -> None:
    """The file is there and not in force."""
    refused = CONFIGURATION | {"refused": {"hash": "def", "detail": "indexes.items.k: 0", "at": None}}
    async with service(configuration=json_of(refused), indexes=json_of({"indexes": []})) as port:
        (report,) = await asked(port, pod())

    assert ("abc", "indexes.items.k: 0") == (report.configuration_hash, report.refused)


async def test_a_pod_that_is_not_ready_is_asked_too() -> None:
    """Why it is not ready is what people want to know."""
    answers = {"indexes": [FAILED], "default_index": None}
    async with service(configuration=json_of(CONFIGURATION), indexes=json_of(answers)) as port:
        (report,) = await asked(port, pod(conditions=[{"type": "Ready", "status": "False"}]))

    assert (False, ["users"]) == (report.ready, [*report.indexes])


async def too_much(request: web.Request) -> web.StreamResponse:
    """Bytes without end."""
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b" " * 65_536)
    return response


async def redirect(_: web.Request) -> web.Response:
    """To somewhere else."""
    raise web.HTTPFound("http://127.0.0.1:1/")


async def text(_: web.Request) -> web.Response:
    """Not JSON."""
    return web.Response(text="hello")


async def broken(_: web.Request) -> web.Response:
    """A defect of the service."""
    raise web.HTTPInternalServerError


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (too_much, "/configuration: more than 4194304 bytes"),
        (redirect, "/configuration: HTTP 302"),
        (broken, "/configuration: HTTP 500"),
        (text, "/configuration: not what kosine answers"),
        (json_of({"hash": 5}), "/configuration: not what kosine answers"),
        (json_of([]), "/configuration: not what kosine answers"),
    ],
)
async def test_whatever_is_wrong_with_an_answer_is_told(answer: Answer, expected: str) -> None:
    """Bounded, decoded strictly, followed nowhere; the pod counts as not heard."""
    async with service(configuration=answer, indexes=json_of({"indexes": []})) as port:
        (report,) = await asked(port, pod())

    assert report.error is not None
    assert report.error.startswith(expected)
    assert (None, {}) == (report.configuration_hash, report.indexes)


async def test_a_pod_that_hangs_costs_its_time_and_nobody_elses() -> None:
    """The others are asked meanwhile."""
    held = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await held.wait()
        return web.Response()

    answers = json_of({"indexes": []})
    async with (
        service(configuration=hang, indexes=answers) as hanging,
        service(configuration=json_of(CONFIGURATION), indexes=answers) as well,
    ):
        (silent,) = await asked(hanging, pod(), within=0.2)
        (heard,) = await asked(well, pod())
        held.set()

    assert "no answer within 0.2 s" == silent.error
    assert "abc" == heard.configuration_hash


async def test_nobody_there_is_an_error_of_the_report() -> None:
    """A refused connection raises nothing."""
    (report,) = await asked(1, pod())

    assert report.error


PULLING = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "Insufficient nvidia.com/gpu",
}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"containerStatuses": [{"state": PULLING}]}, "ImagePullBackOff: no such image"),
        ({"initContainerStatuses": [{"state": {"waiting": {"reason": "Error"}}}]}, "Error"),
        ({"conditions": [UNSCHEDULABLE]}, "Unschedulable: Insufficient nvidia.com/gpu"),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}, None),
        ({}, None),
    ],
)
async def test_a_pod_that_does_not_run_tells_why(status: dict[str, Any], expected: str | None) -> None:
    """What the kubelet or the scheduler said; a pod that is only starting waits for nothing."""
    (report,) = await asked(1, pod(phase="Pending", podIP=None, **status))

    assert ("not running", expected) == (report.error, report.waiting)


async def test_pods_on_their_way_out_are_not_reported() -> None:
    """Terminating ones, and what an eviction left behind."""
    leaving = pod("leaving")
    leaving["metadata"]["deletionTimestamp"] = "2026-11-21T12:00:00Z"

    assert () == await asked(1, leaving, pod("evicted", phase="Failed"))


async def test_reports_come_in_the_order_of_names() -> None:
    """Equal observations make equal statuses."""
    reports = await asked(1, pod("c"), pod("a"), pod("b"))

    assert ["a", "b", "c"] == [report.pod for report in reports]
