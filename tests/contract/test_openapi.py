"""The schema tells the truth about the routes, the query and the refusals."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import kosine
from kosine.http.index_status import IndexStatus
from kosine.http.problems import Problem
from kosine.http.wire import CosAnswer, CosAnswers, CosQuery
from tests.contract.test_error_codes import refusals
from tests.kit.http_service import in_process, query, service_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOT_OF_A_ROUTE = {"too_many_connections", "not_found", "method_not_allowed"}
"""Refused before, or for want of, a route."""


@pytest.fixture
async def schema() -> AsyncIterator[dict[str, Any]]:
    """As it is served."""
    async with service_of() as service, in_process(service.doors.fast) as client:
        yield (await client.get("/schema")).json()


def operations(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By method and path."""
    return {
        f"{method.upper()} {path}": operation
        for path, item in schema["paths"].items()
        for method, operation in item.items()
        if method in {"get", "post", "put", "patch", "delete", "head", "options"}
    }


async def test_every_route_is_described_and_nothing_else(schema: dict[str, Any]) -> None:
    """Section 5 of the design."""
    assert {
        "POST /cos",
        "POST /indexes/{name}/cos",
        "GET /indexes/{name}/items/{item}",
        "POST /indexes/{name}/score",
        "GET /indexes",
        "GET /indexes/{name}",
        "POST /indexes/{name}/reload",
        "POST /indexes/{name}/rollback",
        "POST /indexes/{name}/pin",
        "DELETE /indexes/{name}/pin",
        "GET /configuration",
        "GET /livez",
        "GET /readyz",
        "GET /metrics",
        "GET /v2",
        "GET /v2/health/live",
        "GET /v2/health/ready",
        "GET /v2/models/{name}",
        "GET /v2/models/{name}/ready",
        "POST /v2/models/{name}/infer",
        "POST /v2/models/{name}/versions/{version}/infer",
    } == operations(schema).keys()
    assert kosine.__version__ == schema["info"]["version"]


async def test_every_refusal_is_a_problem(schema: dict[str, Any]) -> None:
    """No route describes another shape for an error, but for those of another protocol."""
    for name, operation in operations(schema).items():
        foreign = " /v2" in name
        media_type = "application/json" if foreign else "application/problem+json"
        for status, response in operation["responses"].items():
            if status.startswith("2"):
                continue
            assert (name, status, [media_type]) == (name, status, list(response["content"]))
            reference = response["content"][media_type]["schema"]["$ref"]
            assert reference.endswith("/InferenceError" if foreign else "/Problem")


async def test_every_code_is_described_where_it_can_come_from(schema: dict[str, Any]) -> None:
    """Each code under its own status, on some route; no route tells a code that does not exist."""
    described: set[tuple[str, str]] = set()
    for operation in operations(schema).values():
        for status, response in operation["responses"].items():
            described |= {(status, code) for code in re.findall(r"`(\w+)`", response["description"])}

    expected = {(str(each.status), each.code) for each in refusals() if each.code not in NOT_OF_A_ROUTE}
    assert expected == described


async def test_the_query_is_described_as_it_is_decoded(schema: dict[str, Any]) -> None:
    """Fields, required ones, and that unknown ones are refused."""
    for path in ("POST /cos", "POST /indexes/{name}/cos"):
        body = operations(schema)[path]["requestBody"]
        described = body["content"]["application/json"]["schema"]
        decoded = msgspec.json.schema(CosQuery)["$defs"]["CosQuery"]

        assert body["required"] is True
        assert decoded["properties"].keys() == described["properties"].keys()
        assert decoded["required"] == described.get("required", [])
        assert decoded["additionalProperties"] == described["additionalProperties"]


@pytest.mark.parametrize("struct", [CosAnswer, CosAnswers, IndexStatus, Problem])
async def test_an_answer_is_described_as_it_is_encoded(
    schema: dict[str, Any], struct: type[msgspec.Struct]
) -> None:
    """Field by field."""
    assert set(struct.__struct_encode_fields__) == set(
        schema["components"]["schemas"][struct.__name__]["properties"]
    )


async def test_headers_that_matter_are_described(schema: dict[str, Any]) -> None:
    """Of the request and of the answer."""
    operation = operations(schema)["POST /indexes/{name}/cos"]

    sent = {each["name"] for each in operation["parameters"] if each["in"] == "header"}
    answered = operation["responses"]["200"]["headers"].keys()

    assert {"X-Request-Timeout-Ms", "X-Request-Id", "Kosine-Expect-Version", "Prefer"} == sent
    assert {"X-Request-Id", "Kosine-Version", "Server-Timing"} == answered


async def test_operation_ids_are_short_and_unique(schema: dict[str, Any]) -> None:
    """Generated clients are named after them."""
    ids = [operation["operationId"] for operation in operations(schema).values()]

    assert len(ids) == len(set(ids))
    assert [] == [each for each in ids if not re.fullmatch(r"[a-z_]{3,20}", each)]


async def test_answers_match_what_is_described() -> None:
    """A real answer decodes as the described structs."""
    async with service_of() as service, in_process(service.doors.fast) as client:
        service.publish()
        found = await client.post("/indexes/items/cos", json=query(1, 0, 0, 0))
        shown = await client.get("/indexes/items")
        refused = await client.get("/indexes/other")

        assert msgspec.json.decode(found.content, type=CosAnswer).version == "v1"
        assert msgspec.json.decode(shown.content, type=IndexStatus).name == "items"
        assert msgspec.json.decode(refused.content, type=Problem).code == "unknown_index"
