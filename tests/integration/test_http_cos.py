"""The laws of /cos, each through both doors in process and through a real socket (rows H1-H11, H15-H19)."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from kosine.errors import LoadCode, Stage
from kosine.http.wire import CosQuery
from kosine.serving.status import LoadFailure, LoadStatus
from kosine.settings import BatchSettings, Duration
from tests.kit.engines import NumpyEngine, matrix_of
from tests.kit.http_service import http_service, in_process, query, service_of, until
from tests.kit.serving import info_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx
    from numpy.typing import NDArray

    from tests.kit.http_service import HttpService

JSON = {"content-type": "application/json"}


@dataclass(slots=True)
class Caller:
    """A service and one way in."""

    service: HttpService
    client: httpx.AsyncClient

    async def cos(self, body: Any = None, *, index: str = "items", **headers: str) -> httpx.Response:
        """POST a query; bytes are sent as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(f"/indexes/{index}/cos", content=content, headers=JSON | names)


@pytest.fixture(params=["fast path", "documented route", "socket"])
async def caller(request: pytest.FixtureRequest) -> AsyncIterator[Caller]:
    """Every law holds whichever way a query comes in."""
    async with AsyncExitStack() as stack:
        if request.param == "socket":
            service = await stack.enter_async_context(http_service())
            client = service.client()
        else:
            service = await stack.enter_async_context(service_of())
            doors = service.doors
            client = in_process(doors.fast if request.param == "fast path" else doors.documented)
        yield Caller(service, await stack.enter_async_context(client))


def assert_problem(answer: httpx.Response, status: int, code: str, **facts: Any) -> None:
    """One shape for every refusal (invariant I2)."""
    assert (status, code) == (answer.status_code, answer.json().get("code"))
    assert "application/problem+json" == answer.headers["content-type"]
    body = answer.json()
    assert {"type", "title", "status", "detail", "code", "request_id"} <= body.keys()
    assert status == body["status"]
    assert f"urn:kosine:error:{code}" == body["type"]
    assert answer.headers["x-request-id"] == body["request_id"]
    assert facts == {name: body.get(name) for name in facts}
    assert "Traceback" not in answer.text


async def test_the_best_items_come_first_with_their_version(caller: Caller) -> None:
    """An answer is pairs of id and score, best first, and names the version that found them."""
    caller.service.publish(version="v7")

    answer = await caller.cos(query(3, 4, 0, -1, k=3))

    assert 200 == answer.status_code
    assert {"result": [[1, 0.784465], [0, 0.588348], [2, 0.0]], "version": "v7"} == {
        "version": answer.json()["version"],
        "result": [[found, round(score, 6)] for found, score in answer.json()["result"]],
    }


async def test_an_answer_carries_its_headers(caller: Caller) -> None:
    """Version, timing, request id, type and length."""
    caller.service.publish(version="v7")

    answer = await caller.cos(query(1, 0, 0, 0), x_request_id="my.id-1")

    assert ("v7", "my.id-1", "application/json", str(len(answer.content))) == tuple(
        answer.headers[name] for name in ("kosine-version", "x-request-id", "content-type", "content-length")
    )
    queue, engine = (part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    assert ("queue", "engine") == (queue[0], engine[0])
    assert all(0 <= float(milliseconds) < 60_000 for milliseconds in (queue[1], engine[1]))
    assert 1 == answer.headers.get_list("x-request-id").__len__()


async def test_without_an_id_a_request_gets_one(caller: Caller) -> None:
    """Each request its own."""
    caller.service.publish()

    ids = {(await caller.cos(query(1, 0, 0, 0))).headers["x-request-id"] for _ in range(3)}
    assert 3 == len(ids)


async def test_string_ids_are_answered_as_strings(caller: Caller) -> None:
    """An index with ids answers them instead of row numbers."""
    caller.service.publish(ids=np.array(["a", "b", "c", "d"]))

    answer = await caller.cos(query(0, 1, 0, 0, k=1))
    assert [["b", 1.0]] == answer.json()["result"]


async def test_cos_without_a_name_asks_the_default_index(caller: Caller) -> None:
    """POST /cos is POST /indexes/{default_index}/cos."""
    caller.service.publish("other", version="v2")
    caller.service.default_index = "other"

    answer = await caller.client.post("/cos", json=query(1, 0, 0, 0))
    assert (200, "v2") == (answer.status_code, answer.json()["version"])


async def test_cos_without_a_default_index_says_so(caller: Caller) -> None:
    """404, telling what is missing."""
    caller.service.publish()

    answer = await caller.client.post("/cos", json=query(1, 0, 0, 0))
    assert_problem(answer, 404, "unknown_index")
    assert "default_index" in answer.json()["detail"]


async def test_k_defaults_to_the_indexs_own(caller: Caller) -> None:
    """A query that names no k gets what the index is configured to answer, also after it changed."""
    version = caller.service.publish(k=2)
    before = await caller.cos(query(1, 0, 0, 0))
    version.configure(type(version.settings)(uri="items.npy", k=3))
    after = await caller.cos(query(1, 0, 0, 0))

    assert [2, 3] == [len(answer.json()["result"]) for answer in (before, after)]


async def test_h1_another_length_is_refused_with_the_one_expected(caller: Caller) -> None:
    """H1: the refusal says how long, how long it should be, and of which version."""
    caller.service.publish(version="v3")
    for length in (0, 3, 5):
        answer = await caller.cos(query(*[1.0] * length))
        assert_problem(answer, 422, "dim_mismatch", expected=4, got=length, version="v3")


async def test_h2_what_is_not_json_is_refused(caller: Caller) -> None:
    """H2: JSON has no infinity and no NaN."""
    caller.service.publish()
    for number in (b"NaN", b"Infinity", b"-Infinity", b"1e400"):
        answer = await caller.cos(b'{"embedding": [1, 0, 0, ' + number + b"]}")
        assert_problem(answer, 400, "bad_json")


async def test_h3_what_float32_cannot_hold_is_refused(caller: Caller) -> None:
    """H3: judged after the cast to float32."""
    caller.service.publish()
    for number, code in ((1e39, "not_finite"), (1e-46, "zero_vector"), (0, "zero_vector")):
        assert_problem(await caller.cos(query(number, 0, 0, 0)), 422, code)


async def test_h3_extreme_lengths_have_ordinary_directions(caller: Caller) -> None:
    """H3: a cosine does not depend on length, at any length float32 can hold."""
    caller.service.publish()
    for scale in (1e20, 1e-30, 3e38, 1e-44):
        answer = await caller.cos(query(scale, scale, 0, 0, k=2))
        assert [[0, 0.7071], [1, 0.7071]] == [
            [found, round(score, 4)] for found, score in answer.json()["result"]
        ]


async def test_h4_a_wrong_type_is_refused_with_its_path(caller: Caller) -> None:
    """H4: the path leads to the value."""
    caller.service.publish()
    paths = {
        '["1", 0, 0, 0]': "$.embedding[0]",
        "[1, null, 0, 0]": "$.embedding[1]",
        "[1, 0, true, 0]": "$.embedding[2]",
        "[[1, 0], [0]]": "$.embedding[0]",
        '{"0": 1}': "$.embedding",
        '"1"': "$.embedding",
    }
    for embedding, path in paths.items():
        answer = await caller.cos(f'{{"embedding": {embedding}}}'.encode())
        assert_problem(answer, 422, "invalid_value", path=path)


async def test_h5_k_outside_its_bounds_is_refused(caller: Caller) -> None:
    """H5: whatever is not a whole number from 1 to max_k."""
    caller.service.publish(max_k=7)
    for k in ("0", "-1", "1.5", str(10**20), "8", '"1"', "null", "1" * 5_000):
        answer = await caller.cos(f'{{"embedding": [1, 0, 0, 0], "k": {k}}}'.encode())
        assert_problem(answer, 422, "bad_k")


async def test_h5_k_beyond_the_rows_answers_all_of_them(caller: Caller) -> None:
    """H5: rows < k <= max_k is no error."""
    caller.service.publish(max_k=7)

    answer = await caller.cos(query(1, 0, 0, 0, k=7))
    assert 4 == len(answer.json()["result"])


async def test_h6_a_name_that_is_not_configured_is_unknown(caller: Caller) -> None:
    """H6: 404, counted under one label whatever the name was."""
    caller.service.publish()
    names = (
        "other",
        "%00",
        "items%0d%0a",
        "items%0a",
        "%ff",
        "a" * 500,
        "%D1%96tems",
        "ITEMS",
        "-",
    )
    for name in names:
        assert_problem(await caller.cos(query(1, 0, 0, 0), index=name), 404, "unknown_index")
        assert 0 == caller.service.count(name, "unknown_index")
    assert len(names) == caller.service.count("_unknown", "unknown_index")


async def test_h6_a_path_that_is_no_name_is_not_found(caller: Caller) -> None:
    """H6: an encoded slash or a path longer than any opens nothing."""
    caller.service.publish()
    for name in ("..%2fitems", "%2e%2e%2fitems", "items%2fx", "a" * 5_000):
        answer = await caller.cos(query(1, 0, 0, 0), index=name)
        # Decoded, one of them is a path of items, which cannot be posted to.
        statuses = {"unknown_index": 404, "not_found": 404, "method_not_allowed": 405}
        assert_problem(answer, statuses[answer.json()["code"]], answer.json()["code"])


async def test_h7_an_index_that_is_still_loading_is_not_ready(caller: Caller) -> None:
    """H7: 503 with a time to come back, not 404."""
    caller.service.registry.declare("items", source="items.npy", required=True)

    answer = await caller.cos(query(1, 0, 0, 0))
    assert_problem(answer, 503, "index_not_ready", state="loading")
    assert int(answer.headers["retry-after"]) >= 1
    assert 1 == caller.service.count("items", "index_not_ready")


async def test_h7_an_index_whose_first_load_failed_is_not_ready(caller: Caller) -> None:
    """H7: 503, and why."""
    registry = caller.service.registry
    registry.declare("items", source="items.npy", required=True)
    failure = LoadFailure(
        code=LoadCode.BAD_MAGIC, stage=Stage.GATE, detail="no", at=info_of().loaded_at, consecutive=1
    )
    registry.note("items", LoadStatus(last_error=failure))

    answer = await caller.cos(query(1, 0, 0, 0))
    assert_problem(answer, 503, "index_not_ready", state="failed", reason="bad_magic")
    assert "retry-after" in answer.headers


async def test_h8_deep_json_is_refused(caller: Caller) -> None:
    """H8: no depth overflows a stack."""
    caller.service.publish()
    for levels in (100, 5_000, 100_000):
        assert_problem(await caller.cos(b"[" * levels + b"]" * levels), 400, "json_too_deep")
    assert 200 == (await caller.cos(query(1, 0, 0, 0))).status_code


async def test_h9_what_is_not_utf_8_is_refused(caller: Caller) -> None:
    """H9: nowhere in a body."""
    caller.service.publish()
    good = '{"embedding": [1, 0, 0, 0]}'
    for body in (good.encode("utf-8-sig"), good.encode("utf-16"), b"\xff", b'{"embedding": [1], "\xff": 1}'):
        assert_problem(await caller.cos(body), 400, "bad_encoding")


async def test_h10_an_unknown_field_is_refused_by_name(caller: Caller) -> None:
    """H10: a misspelt k does not silently become the default."""
    caller.service.publish()

    answer = await caller.cos({"embedding": [1, 0, 0, 0], "K": 1})
    assert_problem(answer, 422, "unknown_field", field="K", known=[*CosQuery.__struct_fields__])


async def test_h10_of_duplicate_keys_the_last_counts(caller: Caller) -> None:
    """H10: as documented."""
    caller.service.publish()

    answer = await caller.cos(b'{"embedding": [1, 0, 0, 0], "k": 1, "k": 2, "embedding": [0, 1, 0, 0]}')
    assert [1, 0] == [found for found, _ in answer.json()["result"]]


async def test_h11_another_media_type_or_encoding_is_refused(caller: Caller) -> None:
    """H11: 415, also for the right body under the wrong type."""
    caller.service.publish()
    content = json.dumps(query(1, 0, 0, 0)).encode()
    for wrong in ({"content-type": "text/plain"}, {"content-type": ""}, {"content-encoding": "gzip"}):
        answer = await caller.client.post("/indexes/items/cos", content=content, headers=JSON | wrong)
        assert_problem(answer, 415, "unsupported_media_type")


async def test_h11_no_content_type_is_refused(caller: Caller) -> None:
    """H11: curl -d without -H sends a form; a bare POST sends nothing. Neither is JSON."""
    caller.service.publish()

    answer = await caller.client.post("/indexes/items/cos", content=b'{"embedding": [1, 0, 0, 0]}')
    assert_problem(answer, 415, "unsupported_media_type")


async def test_h12_a_body_at_the_limit_is_read_and_one_byte_more_is_not(caller: Caller) -> None:
    """H12: declared or counted, the limit is the same."""
    caller.service.publish()
    limit = int(caller.service.settings.body_limit)
    body = b'{"embedding": [1, 0, 0, 0]}'

    async def chunks(size: int) -> AsyncIterator[bytes]:
        yield body
        yield b" " * (size - len(body))

    post = caller.client.post
    at = [await post("/indexes/items/cos", content=body.ljust(limit), headers=JSON)]
    at += [await post("/indexes/items/cos", content=chunks(limit), headers=JSON)]
    over = [await post("/indexes/items/cos", content=body.ljust(limit + 1), headers=JSON)]
    over += [await post("/indexes/items/cos", content=chunks(limit + 1), headers=JSON)]

    assert [200, 200] == [answer.status_code for answer in at]
    for answer in over:
        assert_problem(answer, 413, "body_too_large", limit=limit)


async def test_h17_a_bad_timeout_is_refused(caller: Caller) -> None:
    """H17: whole milliseconds from 1."""
    caller.service.publish()
    for sent in ("0", "-5", "soon", "1.5"):
        answer = await caller.cos(query(1, 0, 0, 0), x_request_timeout_ms=sent)
        assert_problem(answer, 422, "invalid_value", header="X-Request-Timeout-Ms")


async def test_every_query_is_counted_by_its_outcome(caller: Caller) -> None:
    """One count per query, under the index's name and the outcome's code."""
    caller.service.publish()
    for body in (query(1, 0, 0, 0), query(0, 1, 0, 0), query(1), b"{", query(1, 0, 0, 0, k=0)):
        await caller.cos(body)

    counted = {
        outcome: caller.service.count("items", outcome)
        for outcome in ("ok", "dim_mismatch", "bad_json", "bad_k")
    }
    assert {"ok": 2, "dim_mismatch": 1, "bad_json": 1, "bad_k": 1} == counted


async def test_an_unexpected_exception_is_an_internal_error_and_tells_nobody_why(caller: Caller) -> None:
    """A defect is 500 with the id under which the log has the traceback; nothing of it leaves the process."""
    version = caller.service.publish()

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("/secret/path")

    version.batcher.search = broken  # type: ignore[method-assign]

    with capture_logs() as lines:
        answer = await caller.cos(query(1, 0, 0, 0))

    assert_problem(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert [(answer.headers["x-request-id"], "internal_error", "/secret/path")] == [
        (line["request_id"], line["code"], str(line["exc_info"])) for line in lines
    ]
    assert 1 == caller.service.count("items", "internal_error")


class Held:
    """An engine that answers nothing until it is let go."""

    def __init__(self, **options: Any) -> None:
        self.gate = threading.Event()
        self.engine = NumpyEngine(matrix=matrix_of(np.eye(4)), hold=self.gate, **options)

    async def is_busy(self, calls: int = 1) -> None:
        """Wait until that many calls have reached the engine."""
        await until(lambda: len(self.engine.batches) >= calls)

    @property
    def rows(self) -> list[int]:
        """Rows of every call so far."""
        return [rows for rows, _ in self.engine.batches]


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    """Let go at the end, whatever happened."""
    engine = Held()
    yield engine
    engine.gate.set()


async def test_h17_a_short_deadline_is_answered_on_time_and_not_computed(caller: Caller, held: Held) -> None:
    """H17: 504 while the device is busy with somebody else; the expired query never reaches it."""
    caller.service.publish(engine=held.engine)
    first = asyncio.create_task(caller.cos(query(1, 0, 0, 0)))
    await held.is_busy()

    late = await caller.cos(query(0, 1, 0, 0), x_request_timeout_ms="30")
    held.gate.set()

    assert_problem(late, 504, "deadline_exceeded")
    assert 200 == (await first).status_code
    assert 200 == (await caller.cos(query(0, 0, 1, 0))).status_code
    assert [1, 1] == held.rows


async def test_h18_past_the_bound_of_the_queue_a_query_is_refused_at_once(caller: Caller, held: Held) -> None:
    """H18: 429 with a whole number of seconds to wait; those inside the bound are all answered."""
    caller.service.publish(
        engine=held.engine, batch=BatchSettings(queue_rows=2, max_rows=1), timeout=Duration(30)
    )
    inside = [asyncio.create_task(caller.cos(query(1, 0, 0, 0)))]
    await held.is_busy()
    inside += [asyncio.create_task(caller.cos(query(1, 0, 0, 0))) for _ in range(2)]
    current = caller.service.registry.current("items")
    assert current is not None
    await until(lambda: current.batcher.queued_rows == 2)

    over = await caller.cos(query(1, 0, 0, 0))
    held.gate.set()

    assert_problem(over, 429, "overloaded", queue_rows=2)
    assert int(over.headers["retry-after"]) >= 1
    assert [200] * 3 == [answer.status_code for answer in await asyncio.gather(*inside)]


async def test_h16_one_bad_query_fails_alone(caller: Caller) -> None:
    """H16: what the engine cannot stand fails its own caller, in whatever batch it was."""

    def marked(queries: NDArray[np.float32]) -> Exception | None:
        return RuntimeError("device error") if (queries[:, 3] == 0.5).any() else None

    held = Held(fail_on=marked)
    caller.service.publish(engine=held.engine)
    first = asyncio.create_task(caller.cos(query(1, 0, 0, 0)))
    await held.is_busy()
    bodies = [query(1, 0, 0, 0), query(0, 1, 0, 0.5), query(0, 0, 1, 0), query(0, 0, 0, 1)]
    mates = [asyncio.create_task(caller.cos(body)) for body in bodies]
    current = caller.service.registry.current("items")
    assert current is not None
    await until(lambda: current.batcher.queued_rows == len(bodies))
    with capture_logs() as lines:
        held.gate.set()
        answers = await asyncio.gather(*mates)

    assert [200, 503, 200, 200] == [answer.status_code for answer in answers]
    assert_problem(answers[1], 503, "engine_error")
    assert [0, 2, 3] == [answers[at].json()["result"][0][0] for at in (0, 2, 3)]
    assert 200 == (await first).status_code
    assert 4 in held.rows
    assert [("engine_error", "device error")] == [(line["code"], str(line["exc_info"])) for line in lines]


async def test_h19_one_flooded_index_does_not_starve_another(caller: Caller) -> None:
    """H19: indexes take turns by batch, so a flood next door costs one batch, not the whole queue."""
    order: list[str] = []

    def noted(name: str) -> Any:
        return lambda _: order.append(name)

    flooded = Held(fail_on=noted("flooded"))
    quiet = NumpyEngine(matrix=matrix_of(np.eye(4)), fail_on=noted("quiet"))
    caller.service.publish("flooded", engine=flooded.engine, batch=BatchSettings(max_rows=1))
    caller.service.publish("quiet", engine=quiet)
    flood = [asyncio.create_task(caller.cos(query(1, 0, 0, 0), index="flooded")) for _ in range(20)]
    await flooded.is_busy()
    current = caller.service.registry.current("flooded")
    assert current is not None
    await until(lambda: current.batcher.queued_rows == 19)
    other = asyncio.create_task(caller.cos(query(1, 0, 0, 0), index="quiet"))
    beside = caller.service.registry.current("quiet")
    assert beside is not None
    await until(lambda: beside.batcher.queued_rows == 1)
    flooded.gate.set()

    answers = await asyncio.gather(*flood, other)
    assert [200] * 21 == [answer.status_code for answer in answers]
    assert order.index("quiet") <= 2


async def test_a_swap_changes_the_version_and_the_dimension_of_later_queries(caller: Caller) -> None:
    """A query in flight keeps the version it was bound to; the next one meets the new one."""
    old = Held()
    caller.service.publish(engine=old.engine, version="v1")
    bound = asyncio.create_task(caller.cos(query(1, 0, 0, 0)))
    await old.is_busy()
    caller.service.publish(engine=NumpyEngine(matrix=matrix_of(np.eye(3))), version="v2")
    stale = await caller.cos(query(1, 0, 0, 0))
    old.gate.set()
    fresh = await caller.cos(query(1, 0, 0))

    assert_problem(stale, 422, "dim_mismatch", expected=3, got=4, version="v2")
    assert ["v1", "v2"] == [answer.json()["version"] for answer in (await bound, fresh)]


async def test_while_the_process_drains_every_answer_closes_its_connection() -> None:
    """Callers with kept connections move on before the socket closes."""
    async with service_of() as service:
        service.publish()
        service.health.draining = True
        for app in (service.doors.fast, service.doors.documented):
            async with in_process(app) as client:
                good = await client.post("/indexes/items/cos", json=query(1, 0, 0, 0))
                bad = await client.post("/indexes/items/cos", json=query(1))
                missing = await client.get("/nowhere")
                assert ["close"] * 3 == [answer.headers.get("connection") for answer in (good, bad, missing)]
                assert [200, 422, 404] == [answer.status_code for answer in (good, bad, missing)]


async def test_a_query_that_a_server_cancels_is_told_that_the_service_stops() -> None:
    """At the end of grace a caller gets an answer, not a reset."""
    async with service_of() as service:
        held = Held()
        service.publish(engine=held.engine)
        async with in_process(service.doors.fast) as client:
            task = asyncio.create_task(client.post("/indexes/items/cos", json=query(1, 0, 0, 0)))
            await held.is_busy()
            task.cancel()
            held.gate.set()
            assert_problem(await task, 503, "shutting_down")


async def test_random_names_and_paths_add_no_series() -> None:
    """Labels are a bounded set: no caller can make one."""
    async with service_of() as service, in_process(service.doors.fast) as client:
        service.publish()

        async def series() -> int:
            return (await client.get("/metrics")).text.count("\n")

        await client.post("/indexes/nobody/cos", json=query(1))
        before = await series()
        for number in range(300):
            await client.post(f"/indexes/n{number}/cos", json=query(1))
            await client.get(f"/p{number}")
        assert before == await series()
