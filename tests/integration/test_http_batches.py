"""Several queries in one request, and a version that the caller insists on: each through every door."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from kosine.errors import RequestError
from kosine.settings import BatchSettings
from tests.kit.engines import NumpyEngine, matrix_of
from tests.kit.http_service import http_service, in_process, service_of
from tests.kit.oracle import best_first, true_scores

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from tests.kit.http_service import HttpService

LENIENT = {"Prefer": "handling=lenient"}


@pytest.fixture(params=["fast path", "documented route", "socket"])
async def caller(request: pytest.FixtureRequest) -> AsyncIterator[tuple[HttpService, httpx.AsyncClient]]:
    """A service and one way in."""
    if request.param == "socket":
        async with http_service() as service, service.client() as client:
            yield service, client
        return
    async with service_of() as service:
        doors = service.doors
        async with in_process(doors.fast if request.param == "fast path" else doors.documented) as client:
            yield service, client


Caller = tuple["HttpService", "httpx.AsyncClient"]


async def ask(caller: Caller, *rows: list[Any], headers: dict[str, str] | None = None, **body: Any) -> Any:
    """POST several queries."""
    content = {"embeddings": list(rows), **body}
    return await caller[1].post("/indexes/items/cos", json=content, headers=headers)


def axis(number: int) -> list[float]:
    """A unit vector of 4 dimensions."""
    return [float(number == each) for each in range(4)]


async def test_each_query_has_its_result_in_its_place(caller: Caller) -> None:
    """The results stand in the order of the queries, under one version."""
    caller[0].publish(version="v7", ids=np.array(["a", "b", "c", "d"]))

    answer = await ask(caller, axis(2), axis(0), k=1)

    assert 200 == answer.status_code
    assert {"results": [[["c", 1.0]], [["a", 1.0]]], "version": "v7"} == answer.json()
    assert "v7" == answer.headers["kosine-version"]
    assert answer.headers["server-timing"].startswith("queue;dur=")


async def test_a_list_of_one_is_a_list(caller: Caller) -> None:
    """The shape of the answer follows from the field that was sent."""
    caller[0].publish()
    assert [[[3, 1.0]]] == (await ask(caller, axis(3), k=1)).json()["results"]


async def test_several_queries_are_answered_as_each_by_itself(caller: Caller) -> None:
    """Spread over batches of three rows, and exact against NumPy."""
    rng = np.random.default_rng(8)
    items, queries = rng.standard_normal((50, 4)), rng.standard_normal((10, 4))
    caller[0].publish(
        engine=NumpyEngine(matrix=matrix_of(items)), batch=BatchSettings(max_rows=3), max_query_rows=10
    )

    answer = await ask(caller, *queries.tolist(), k=5)

    found = [[row for row, _ in result] for result in answer.json()["results"]]
    assert best_first(true_scores(items, queries), 5).tolist() == found


async def test_one_bad_query_refuses_the_whole_and_names_the_bad_ones(caller: Caller) -> None:
    """Strict is the default: nothing is computed, and the error tells which rows to correct."""
    engine = NumpyEngine(matrix=matrix_of(np.eye(4)))
    caller[0].publish(engine=engine)

    answer = await ask(caller, axis(0), [0.0] * 4, axis(1), [1.0])

    body = answer.json()
    assert (422, "zero_vector", [1, 3]) == (answer.status_code, body["code"], body["rows"])
    assert body["detail"].startswith("query 1: ")
    assert [] == engine.batches


async def test_lenient_callers_get_the_good_ones_and_why_the_others_are_bad(caller: Caller) -> None:
    """207, a null in the place of what was refused, and its error by row."""
    caller[0].publish(version="v3")

    answer = await ask(caller, axis(1), [0.0] * 4, axis(2), [1.0], k=1, headers=LENIENT)

    body = answer.json()
    assert (207, "handling=lenient") == (answer.status_code, answer.headers["preference-applied"])
    assert [[[1, 1.0]], None, [[2, 1.0]], None] == body["results"]
    assert [(1, "zero_vector"), (3, "dim_mismatch")] == [
        (each["row"], each["code"]) for each in body["errors"]
    ]
    assert {"expected": 4, "got": 1, "version": "v3"}.items() <= body["errors"][1].items()


async def test_lenient_callers_with_good_queries_see_no_difference(caller: Caller) -> None:
    """200, and no `errors`."""
    caller[0].publish()
    answer = await ask(caller, axis(1), headers=LENIENT)
    assert (200, {"results", "version"}) == (answer.status_code, set(answer.json()))


async def test_a_row_that_fails_in_the_engine_fails_alone_for_lenient_callers(caller: Caller) -> None:
    """What could not be known before the queue is told in the same way."""
    engine = NumpyEngine(
        matrix=matrix_of(np.eye(4)), fail_on=lambda asked: ValueError("x") if asked[:, 3].any() else None
    )
    caller[0].publish(engine=engine)

    lenient = await ask(caller, axis(0), axis(3), k=1, headers=LENIENT)
    with capture_logs() as lines:
        strict = await ask(caller, axis(0), axis(3), k=1)

    assert [("engine_error", True)] == [(line["code"], bool(line.get("exc_info"))) for line in lines]
    assert (207, [[[0, 1.0]], None]) == (lenient.status_code, lenient.json()["results"])
    assert ["engine_error"] == [each["code"] for each in lenient.json()["errors"]]
    assert (503, "engine_error", [1]) == (strict.status_code, strict.json()["code"], strict.json()["rows"])
    assert "1" == strict.headers["retry-after"]


@pytest.mark.parametrize(
    ("settings", "limit"),
    [({"max_query_rows": 2}, 2), ({"batch": BatchSettings(max_rows=1, queue_rows=2)}, 2)],
)
async def test_more_queries_than_are_taken_at_once_are_refused(
    caller: Caller, settings: dict[str, Any], limit: int
) -> None:
    """The bound is the setting, and never more than the queue holds."""
    caller[0].publish(**settings)

    taken, refused = await ask(caller, axis(0), axis(1)), await ask(caller, axis(0), axis(1), axis(2))

    assert (200, 422, "too_many_rows") == (taken.status_code, refused.status_code, refused.json()["code"])
    assert {"limit": limit, "got": 3}.items() <= refused.json().items()


async def test_no_query_at_all_is_refused(caller: Caller) -> None:
    """An empty list asks nothing."""
    caller[0].publish()
    assert "invalid_value" == (await ask(caller)).json()["code"]


async def test_k_is_checked_once_for_all(caller: Caller) -> None:
    """A bad k is no matter of one row, so leniency does not help."""
    caller[0].publish(max_k=3)
    assert "bad_k" == (await ask(caller, axis(0), k=4, headers=LENIENT)).json()["code"]


async def test_a_version_that_is_insisted_on_answers_or_nobody(caller: Caller) -> None:
    """Kosine-Expect-Version: 409 as soon as another version would answer."""
    service, client = caller
    service.publish(version="v1")
    pinned = {"Kosine-Expect-Version": "v1"}
    body = {"embedding": axis(0)}

    before = await client.post("/indexes/items/cos", json=body, headers=pinned)
    service.publish(version="v2")
    after = await client.post("/indexes/items/cos", json=body, headers=pinned)

    assert (200, 409, "version_mismatch") == (before.status_code, after.status_code, after.json()["code"])
    assert ("v1", "v2") == (after.json()["expected"], after.json()["version"])


def test_every_refusal_can_be_told_of_a_row() -> None:
    """A row's error becomes the whole's by its class: none has a constructor of its own."""
    assert [] == [each for each in RequestError.__subclasses__() if "__init__" in vars(each)]
