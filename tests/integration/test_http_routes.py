"""The documented routes: states, reloads, probes, metrics, the schema, and one shape of refusal."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from structlog.testing import capture_logs

from kosine.errors import LoadCode, ReloadFailed, Stage, UnknownVersion, VersionGone
from kosine.serving.status import (
    CanaryCheck,
    CanaryReport,
    ConfigurationRefusal,
    ConfigurationStatus,
    LoadFailure,
    LoadStatus,
    Pin,
    ReloadOutcome,
    ServedVersion,
)
from tests.kit.http_service import in_process, query, service_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from kosine.errors import RequestError
    from tests.kit.http_service import HttpService

FAILURE = LoadFailure(
    code=LoadCode.SIZE_MISMATCH,
    stage=Stage.GATE,
    detail="expected 400 bytes, got 399",
    at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    consecutive=3,
    facts={"expected": 400, "got": 399},
)


@pytest.fixture
async def service() -> AsyncIterator[HttpService]:
    """A service in process."""
    async with service_of() as made:
        yield made


@pytest.fixture
async def client(service: HttpService) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it."""
    async with in_process(service.doors.fast) as made:
        yield made


async def test_an_index_shows_its_version_and_its_settings(
    service: HttpService, client: httpx.AsyncClient
) -> None:
    """Everything of section 5 of the design, and nothing null that is known."""
    service.publish(version="v7", k=5, max_k=50)

    answer = await client.get("/indexes/items")

    assert 200 == answer.status_code
    assert {
        "name": "items",
        "state": "available",
        "source": "items.npy",
        "required": True,
        "version": "v7",
        "rows": 4,
        "dim": 4,
        "dtype": "<f4",
        "metric": "cosine",
        "bytes": 64,
        "norms": {"min": 1.0, "max": 1.0},
        "dropped": None,
        "masks": {},
        "fingerprint": "fingerprint of v7",
        "digest": "v7v7v7v7",
        "device": "/CPU:0",
        "single_query": "graph",
        "loaded_at": "2026-01-01T00:00:00Z",
        "load_seconds": 0.5,
        "k": 5,
        "max_k": 50,
        "checked_at": None,
        "stage": None,
        "bytes_read": 0,
        "bytes_total": 0,
        "stale": False,
        "outdated": False,
        "last_error": None,
        "canary": None,
        "pinned": None,
        "history": [],
    } == answer.json()


async def test_an_index_that_loads_shows_how_far_it_is(
    service: HttpService, client: httpx.AsyncClient
) -> None:
    """Before the first version: the stage, the bytes so far, and nulls for what is not known yet."""
    service.registry.declare("items", source="s.npy", required=False)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    service.registry.note(
        "items", LoadStatus(stage=Stage.FETCH, bytes_read=10, bytes_total=400, checked_at=at)
    )

    shown = (await client.get("/indexes/items")).json()

    assert ("loading", "s.npy", False, "fetch", 10, 400, "2026-01-01T00:00:00Z", None) == tuple(
        shown[name]
        for name in (
            "state",
            "source",
            "required",
            "stage",
            "bytes_read",
            "bytes_total",
            "checked_at",
            "version",
        )
    )


async def test_an_index_whose_reload_failed_serves_on_and_tells_why(
    service: HttpService, client: httpx.AsyncClient
) -> None:
    """Law 2: the status changes, the state does not."""
    service.publish()
    service.registry.note("items", LoadStatus(last_error=FAILURE))

    shown = (await client.get("/indexes/items")).json()

    assert "available" == shown["state"]
    assert {
        "code": "size_mismatch",
        "stage": "gate",
        "detail": "expected 400 bytes, got 399",
        "at": "2026-01-02T03:04:05Z",
        "consecutive": 3,
        "facts": {"expected": 400, "got": 399},
    } == shown["last_error"]


async def test_an_index_shows_what_its_canary_found(service: HttpService, client: httpx.AsyncClient) -> None:
    """Every check with its threshold and what came, the passed ones, too."""
    service.publish()
    drift = CanaryCheck(name="row_drift", outcome="passed", expected=10, came=2.5, detail="41 rows")
    overlap = CanaryCheck(name="overlap", outcome="skipped", expected=60, detail="nothing serves yet")
    for checks, passed in (
        ((drift, overlap), True),
        ((drift, replace(overlap, outcome="failed", came=1.0)), False),
    ):
        report = CanaryReport(version="0123456789abcdef", at=FAILURE.at, checks=checks)
        service.registry.note("items", LoadStatus(canary=report))
        shown = (await client.get("/indexes/items")).json()["canary"]
        assert ("0123456789abcdef", passed) == (shown["version"], shown["passed"])
        assert [asdict(check) for check in checks] == shown["checks"]


async def test_all_indexes_are_listed_by_name(service: HttpService, client: httpx.AsyncClient) -> None:
    """Loaded or not, with the default one named."""
    service.publish("b")
    service.registry.declare("a", source="a.npy", required=True)
    service.default_index = "b"

    listed = (await client.get("/indexes")).json()

    assert [("a", "loading"), ("b", "available")] == [
        (index["name"], index["state"]) for index in listed["indexes"]
    ]
    assert "b" == listed["default_index"]


@pytest.mark.parametrize("path", ["/indexes/other", "/indexes/%00", "/indexes/items%0a", "/indexes/ITEMS"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_index_is_404(
    service: HttpService, client: httpx.AsyncClient, method: str, path: str
) -> None:
    """H6: to be shown or to be reloaded."""
    service.publish()

    answer = await client.request(method, path + ("/reload" if method == "POST" else ""))

    assert (404, "unknown_index") == (answer.status_code, answer.json()["code"])


@pytest.mark.parametrize("outcome", ["published", "unchanged"])
async def test_a_reload_tells_how_it_ended(
    service: HttpService, client: httpx.AsyncClient, outcome: str
) -> None:
    """200 with the version that serves now."""
    service.reloads.outcomes["items"] = ReloadOutcome(outcome=outcome, version="v2")  # type: ignore[arg-type]

    answer = await client.post("/indexes/items/reload")
    assert (200, {"outcome": outcome, "version": "v2"}) == (answer.status_code, answer.json())


async def test_a_failed_reload_is_409_with_reason_and_stage(
    service: HttpService, client: httpx.AsyncClient
) -> None:
    """And with the version that serves on."""
    service.reloads.outcomes["items"] = ReloadOutcome(outcome="failed", version="v1", error=FAILURE)

    answer = await client.post("/indexes/items/reload")
    body = answer.json()

    assert (409, "reload_failed", "size_mismatch", "gate", "v1") == (
        answer.status_code,
        body["code"],
        body["reason"],
        body["stage"],
        body["version"],
    )
    assert FAILURE.detail == body["detail"]


@pytest.mark.parametrize(
    ("method", "path", "body", "order"),
    [
        ("POST", "rollback", b"", ("items", "rollback", None)),
        ("POST", "rollback", b"{}", ("items", "rollback", None)),
        ("POST", "rollback", b'{"version": "v1"}', ("items", "rollback", "v1")),
        ("POST", "pin", b" ", ("items", "pin", None)),
        ("POST", "pin", b'{"version": "v1"}', ("items", "pin", "v1")),
        ("DELETE", "pin", b"", ("items", "unpin", None)),
    ],
)
async def test_an_order_is_carried_out_and_told(
    service: HttpService,
    client: httpx.AsyncClient,
    method: str,
    path: str,
    body: bytes,
    order: tuple[str, str, str | None],
) -> None:
    """200 with the version that serves now, whether it was loaded, and whether it is pinned."""
    service.publish()
    service.reloads.outcomes["items"] = ReloadOutcome(outcome="published", version="v1")
    pin = Pin(version="v1", at=FAILURE.at)
    service.registry.note("items", LoadStatus(pin=None if method == "DELETE" else pin))

    answer = await client.request(method, f"/indexes/items/{path}", content=body)

    assert [order] == service.reloads.orders
    expected = {"outcome": "published", "version": "v1", "pinned": method == "POST"}
    assert (200, expected) == (answer.status_code, answer.json())


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"[", 400, "bad_json"),
        (b'"v1"', 422, "invalid_value"),
        (b'{"version": 1}', 422, "invalid_value"),
        (b'{"versoin": "v1"}', 422, "unknown_field"),
    ],
)
async def test_an_order_that_cannot_be_read_is_refused(
    service: HttpService, client: httpx.AsyncClient, body: bytes, status: int, code: str
) -> None:
    """And not carried out."""
    answer = await client.post("/indexes/items/rollback", content=body)

    assert (status, code) == (answer.status_code, answer.json()["code"])
    assert [] == service.reloads.orders


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnknownVersion("none", known=["v1"]), 404),
        (VersionGone("gone", asked="v0", version="v1"), 409),
        (ReloadFailed("no", reason="wont_fit", limit_bytes=1), 409),
    ],
)
async def test_a_refused_order_has_its_facts(
    service: HttpService, client: httpx.AsyncClient, error: RequestError, status: int
) -> None:
    """What is known, what was asked, and all numbers."""
    service.reloads.outcomes["items"] = error

    answer = await client.post("/indexes/items/rollback")

    assert status == answer.status_code
    assert {**error.facts, "code": error.code}.items() <= answer.json().items()


async def test_an_index_shows_its_history_and_its_pin(
    service: HttpService, client: httpx.AsyncClient
) -> None:
    """Which versions there were, and that something else waits in the source."""
    service.publish()
    told = ServedVersion(
        version="v1",
        digest="v1v1",
        fingerprint="file",
        rows=4,
        dim=4,
        cause="rollback",
        published_at=FAILURE.at,
        retired_at=None,
    )
    pin = Pin(version="v1", at=FAILURE.at)
    service.registry.note("items", LoadStatus(history=(told,), pin=pin, waits=True))

    shown = (await client.get("/indexes/items")).json()

    assert ["rollback"] == [each["cause"] for each in shown["history"]]
    assert ("v1", True) == (shown["pinned"]["version"], shown["pinned"]["waits"])


async def test_a_defect_in_a_route_is_500_and_tells_nobody_why(
    service: HttpService, client: httpx.AsyncClient
) -> None:
    """The traceback is in the log under the request's id, and nowhere else."""
    service.reloads.outcomes["items"] = RuntimeError("/secret/path")
    with capture_logs() as lines:
        answer = await client.post("/indexes/items/reload", headers={"x-request-id": "mine"})

    assert (500, "internal_error", "mine") == (
        answer.status_code,
        answer.json()["code"],
        answer.json()["request_id"],
    )
    assert "secret" not in answer.text
    assert [("mine", True)] == [(line["request_id"], "exc_info" in line) for line in lines]


async def test_a_service_is_ready_once_what_is_required_is_loaded(
    service: HttpService, client: httpx.AsyncClient
) -> None:
    """503 with the names that are awaited, 200 after, 503 again as soon as the process stops."""
    service.registry.declare("items", source="items.npy", required=True)
    loading = await client.get("/readyz")
    service.publish()
    ready = await client.get("/readyz")
    service.health.draining = True
    stopping = await client.get("/readyz")

    assert [
        (503, {"ok": False, "reasons": ["items: loading"]}),
        (200, {"ok": True, "reasons": []}),
        (503, {"ok": False, "reasons": ["shutting_down"]}),
    ] == [(answer.status_code, answer.json()) for answer in (loading, ready, stopping)]


async def test_the_configuration_in_force_is_named(service: HttpService, client: httpx.AsyncClient) -> None:
    """Without a file everything is null; a refused file stands beside the one in force."""
    nothing: dict[str, Any] = {"hash": None, "applied_at": None, "restart_needed": [], "refused": None}
    assert nothing == (await client.get("/configuration")).json()

    service.configuration = ConfigurationStatus(
        hash="a1",
        applied_at=FAILURE.at,
        restart_needed=("port",),
        refused=ConfigurationRefusal(hash="b2", detail="line 1: ...", at=FAILURE.at),
    )
    at = "2026-01-02T03:04:05Z"
    assert {
        "hash": "a1",
        "applied_at": at,
        "restart_needed": ["port"],
        "refused": {"hash": "b2", "detail": "line 1: ...", "at": at},
    } == (await client.get("/configuration")).json()


async def test_a_service_is_alive_without_any_index(client: httpx.AsyncClient) -> None:
    """Readiness is not liveness."""
    answer = await client.get("/livez")

    assert (200, {"ok": True, "reasons": []}) == (answer.status_code, answer.json())


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("text/plain; version=latest", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=x.y", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
async def test_metrics_come_as_the_scraper_accepts_them(
    service: HttpService, client: httpx.AsyncClient, accept: str | None, content_type: str
) -> None:
    """And as plain text where what it accepts makes no sense."""
    service.publish()
    await client.post("/indexes/items/cos", json=query(1, 0, 0, 0))
    answer = await client.get("/metrics", headers={} if accept is None else {"accept": accept})

    assert (200, content_type) == (answer.status_code, answer.headers["content-type"])
    assert 'kosine_requests_total{index="items",outcome="ok"} 1.0' in answer.text


@pytest.mark.parametrize("path", ["/", "/nope", "/schema/nope", "/schema/a/b", "/indexes/items/nope"])
async def test_an_unknown_path_is_a_problem_like_any_other(client: httpx.AsyncClient, path: str) -> None:
    """No page of a framework, nowhere."""
    answer = await client.get(path)

    assert (404, "not_found", "application/problem+json") == (
        answer.status_code,
        answer.json()["code"],
        answer.headers["content-type"],
    )


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/cos", {"POST", "OPTIONS"}),
        ("GET", "/indexes/items/cos", {"POST", "OPTIONS"}),
        ("DELETE", "/indexes/items", {"GET", "OPTIONS"}),
        ("GET", "/indexes/items/reload", {"POST", "OPTIONS"}),
        ("POST", "/metrics", {"GET", "OPTIONS"}),
        ("TRACE", "/livez", {"GET", "OPTIONS"}),
    ],
)
async def test_another_method_is_405_with_what_is_allowed(
    client: httpx.AsyncClient, method: str, path: str, allowed: set[str]
) -> None:
    """H23: in the body and in the Allow header."""
    answer = await client.request(method, path)

    assert (405, "method_not_allowed") == (answer.status_code, answer.json()["code"])
    assert allowed == set(answer.headers["allow"].split(", "))


async def test_a_path_longer_than_any_is_not_even_routed(
    service: HttpService, client: httpx.AsyncClient
) -> None:
    """H6: the framework remembers what it routed, so it must not be fed paths of any length."""
    service.publish()
    longest = "/indexes/" + "a" * (1024 - len("/indexes/"))

    assert ["unknown_index", "not_found"] == [
        (await client.get(path)).json()["code"] for path in (longest, longest + "a")
    ]


async def test_a_host_that_is_none_is_a_bad_request(client: httpx.AsyncClient) -> None:
    """Refused by the framework, told in our words."""
    answer = await client.get("/livez", headers={"host": "a b"})

    assert (400, "bad_request") == (answer.status_code, answer.json()["code"])


async def test_every_answer_has_a_request_id(service: HttpService, client: httpx.AsyncClient) -> None:
    """The caller's where it sent a sane one, good or bad, on every route."""
    service.publish()
    paths = [
        "/indexes",
        "/indexes/items",
        "/configuration",
        "/livez",
        "/readyz",
        "/metrics",
        "/schema",
        "/nope",
        "/cos",
    ]
    for path in paths:
        own = await client.get(path, headers={"x-request-id": "my-id"})
        new = await client.get(path, headers={"x-request-id": "not sane"})

        assert ["my-id"] == own.headers.get_list("x-request-id")
        assert 1 == len(new.headers.get_list("x-request-id"))
        assert "not sane" != new.headers["x-request-id"]


async def test_the_schema_comes_as_json_and_as_yaml(client: httpx.AsyncClient) -> None:
    """The same document, and no page that loads scripts from elsewhere."""
    plain = await client.get("/schema")
    named = await client.get("/schema/openapi.json")
    text = await client.get("/schema/openapi.yaml")

    assert plain.json() == named.json() == yaml.safe_load(text.text)
    assert "json" in plain.headers["content-type"]
    assert "<script" not in plain.text


async def test_a_failed_request_leaves_one_line_in_the_log(
    service: HttpService, client: httpx.AsyncClient
) -> None:
    """With its id, index, code and status, and nothing of the vector."""
    service.publish()
    with capture_logs() as lines:
        await client.post("/indexes/items/cos", json=query(0.123456, 1, 2), headers={"x-request-id": "a"})
        await client.get("/indexes/other", headers={"x-request-id": "b"})
        await client.get("/nope", headers={"x-request-id": "c"})
        await client.post("/indexes/items/cos", json=query(1, 0, 0, 0), headers={"x-request-id": "d"})

    assert [
        ("a", "items", "dim_mismatch", 422),
        ("b", "other", "unknown_index", 404),
        ("c", None, "not_found", 404),
    ] == [(line["request_id"], line["index"], line["code"], line["status"]) for line in lines]
    assert "0.123456" not in str(lines)
