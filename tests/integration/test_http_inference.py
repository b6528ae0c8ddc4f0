"""The Open Inference Protocol v2, spoken by hand over real sockets and by NVIDIA's own client."""

from __future__ import annotations

import asyncio
import re
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from kosine.http.inference.metadata import ModelMetadata
from tests.kit.generated_docs import DOCS
from tests.kit.http_service import HttpService, http_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

QUERIES = np.array([[3.0, 2.0, 1.0, 0.5], [-1.0, 0.25, 8.0, 2.0]], np.float32)
NAMES = np.array(["a", "bb", "ccc", "dddd"])
INFER = "/v2/models/items/infer"


@pytest.fixture
async def service() -> AsyncIterator[HttpService]:
    """`items` are the four axes, `named` the same with names; `users` is not loaded yet."""
    async with http_service() as service:
        service.publish(masks={"in_stock": [1, 0, 1, 1], "new": [0, 0, 0, 1]})
        service.publish("named", ids=NAMES)
        service.registry.declare("users", source="users.npy", required=False)
        yield service


def embedding(rows: Any = QUERIES, **changed: Any) -> dict[str, Any]:
    tensor = {"name": "embedding", "shape": list(np.shape(rows)), "datatype": "FP32"}
    return {**tensor, "data": np.asarray(rows).ravel().tolist(), **changed}


def posed(*inputs: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {"inputs": list(inputs) or [embedding()], **others}


async def found_by_cos(service: HttpService, index: str, k: int) -> tuple[list[Any], list[Any]]:
    """Ids and scores, each in one flat list."""
    async with service.client() as client:
        body = {"embeddings": QUERIES.tolist(), "k": k}
        results = (await client.post(f"/indexes/{index}/cos", json=body)).json()["results"]
    pairs = [pair for result in results for pair in result]
    return [id_ for id_, _ in pairs], [score for _, score in pairs]


async def test_health_and_metadata(service: HttpService) -> None:
    """What a client asks before it infers."""
    async with service.client() as client:
        answers = {
            path: await client.get(f"/v2{path}")
            for path in ("", "/health/live", "/health/ready", "/models/items", "/models/named/ready")
        }

    assert {"live": True} == answers["/health/live"].json()
    assert {"ready": True} == answers["/health/ready"].json()
    assert {"name": "named", "ready": True} == answers["/models/named/ready"].json()
    assert [200] * 5 == [each.status_code for each in answers.values()]
    assert ("kosine", ["binary_tensor_data"]) == tuple(
        answers[""].json()[key] for key in ("name", "extensions")
    )
    assert {
        "name": "items",
        "versions": ["v1"],
        "platform": "kosine",
        "inputs": [
            {"name": "embedding", "datatype": "FP32", "shape": [-1, 4]},
            {"name": "k", "datatype": "INT32", "shape": [1]},
        ],
        "outputs": [
            {"name": "ids", "datatype": "INT64", "shape": [-1, -1]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, -1]},
        ],
    } == answers["/models/items"].json()
    assert set(ModelMetadata.__struct_fields__) == set(answers["/models/items"].json())


async def test_a_service_that_stops_is_not_ready(service: HttpService) -> None:
    """503, with the reason."""
    service.health.draining = True
    async with service.client() as client:
        answer = await client.get("/v2/health/ready")

    assert (503, {"error": "shutting_down"}) == (answer.status_code, answer.json())


@pytest.mark.parametrize("index", ["items", "named"])
@pytest.mark.parametrize("flat", [True, False])
async def test_json_is_answered_with_json(service: HttpService, index: str, flat: bool) -> None:
    """What /cos answers, in other words; numbers may lie flat or in rows."""
    ids, scores = await found_by_cos(service, index, 3)
    data = QUERIES.ravel().tolist() if flat else QUERIES.tolist()
    body = posed(embedding(data=data), parameters={"k": 3, "priority": 7}, id="mine")

    async with service.client() as client:
        answer = await client.post(f"/v2/models/{index}/infer", json=body)

    datatype = "INT64" if index == "items" else "BYTES"
    assert {
        "model_name": index,
        "model_version": "v1",
        "id": "mine",
        "outputs": [
            {"name": "ids", "datatype": datatype, "shape": [2, 3], "data": ids},
            {"name": "scores", "datatype": "FP32", "shape": [2, 3], "data": scores},
        ],
    } == answer.json()
    assert ("v1", "application/json") == (answer.headers["kosine-version"], answer.headers["content-type"])


async def test_tensors_behind_the_json_both_ways(service: HttpService) -> None:
    """Each output may choose; k may be a tensor, too."""
    _, scores = await found_by_cos(service, "named", 2)
    inputs = [
        embedding(data=None, parameters={"binary_data_size": QUERIES.nbytes}),
        {"name": "k", "shape": [1], "datatype": "INT32", "parameters": {"binary_data_size": 4}},
    ]
    del inputs[0]["data"]
    outputs = [{"name": "scores", "parameters": {"binary_data": True}}, {"name": "ids"}]
    head = httpx.Request("POST", "http://x", json=posed(*inputs, outputs=outputs)).content

    async with service.client() as client:
        answer = await client.post(
            "/v2/models/named/infer",
            content=head + QUERIES.tobytes() + struct.pack("<i", 2),
            headers={"Inference-Header-Content-Length": str(len(head))},
        )

    length = int(answer.headers["inference-header-content-length"])
    told = httpx.Response(200, content=answer.content[:length]).json()
    assert "application/octet-stream" == answer.headers["content-type"]
    assert ["scores", "ids"] == [each["name"] for each in told["outputs"]]
    assert {"binary_data_size": 16} == told["outputs"][0]["parameters"]
    assert ["a", "bb", "ccc", "dddd"] == told["outputs"][1]["data"]
    assert scores == np.frombuffer(answer.content[length:], "<f4").tolist()


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v2/models/other/infer", posed(), 404, "unknown_index: "),
        ("/v2/models/users/infer", posed(), 503, "index_not_ready: "),
        ("/v2/models/items/versions/v0/infer", posed(), 409, "version_mismatch: expected version v0"),
        (INFER, posed(parameters={"k": 0}), 422, "bad_k: "),
        (INFER, posed(parameters={"k": "3"}), 422, "invalid_value: "),
        (INFER, posed(parameters={"mask": "old"}), 404, "unknown_mask: "),
        (INFER, posed(parameters={"mask": 3}), 422, "invalid_value: expected the parameter `mask` to be a"),
        (INFER, posed(parameters={"not_mask": ["new"]}), 422, "invalid_value: expected the parameter `not_"),
        (INFER, posed(embedding(QUERIES[:, :3])), 422, "dim_mismatch: "),
        (INFER, posed(embedding(np.zeros((1, 4)))), 422, "zero_vector: "),
        (INFER, posed(embedding(data=[1.0])), 422, "dim_mismatch: expected 8 numbers"),
        (INFER, posed(embedding(datatype="FP64")), 422, "invalid_value: expected `embedding` as FP32"),
        (INFER, posed(embedding(name="other")), 422, "invalid_value: expected the input `embedding`"),
        (INFER, posed(embedding(), embedding()), 422, "invalid_value: expected the input `embedding`"),
        (INFER, posed(outputs=[{"name": "other"}]), 422, "invalid_value: expected outputs of `ids`"),
        (INFER, {}, 422, "invalid_value: expected an inference request"),
        (INFER, [], 422, "invalid_value: expected an inference request"),
    ],
)
async def test_a_refusal_has_the_form_of_the_protocol(
    service: HttpService, path: str, body: Any, status: int, said: str
) -> None:
    """One text, which begins with the code."""
    async with service.client() as client:
        refused = await client.post(
            path, json=body, headers={"Accept": "text/csv", "Prefer": "handling=lenient"}
        )

    assert (status, ["error"], "application/json") == (
        refused.status_code,
        list(refused.json()),
        refused.headers["content-type"],
    )
    assert refused.json()["error"].startswith(said)


@pytest.mark.parametrize("path", ["/v2/models/other", "/v2/models/other/ready", "/v2/models/users/ready"])
async def test_a_model_that_is_not_there_is_told_in_the_same_form(service: HttpService, path: str) -> None:
    """404 where there is none of that name, 503 where it is not loaded."""
    async with service.client() as client:
        refused = await client.get(path)

    assert (503 if "users" in path else 404, ["error"]) == (refused.status_code, list(refused.json()))


async def test_a_named_version_answers_while_it_is_current(service: HttpService) -> None:
    """As metadata names it."""
    async with service.client() as client:
        answer = await client.post("/v2/models/items/versions/v1/infer", json=posed())

    assert (200, "v1") == (answer.status_code, answer.json()["model_version"])


async def with_triton(service: HttpService, ask: Callable[[Any, Any], Any]) -> Any:
    """What `ask(client, tritonclient.http)` returns, in a thread, as its users do."""
    triton = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")

    def wait() -> Any:
        with triton.InferenceServerClient(f"{service.host}:{service.port}") as client:
            return ask(client, triton)

    return await asyncio.to_thread(wait)


async def test_tritonclient_finds_its_way(service: HttpService) -> None:
    """Unmodified: health, readiness, metadata."""

    def ask(client: Any, _triton: Any) -> Any:
        return (
            client.is_server_live(),
            client.is_server_ready(),
            client.is_model_ready("items"),
            client.is_model_ready("other"),
            client.get_server_metadata()["name"],
            client.get_model_metadata("named")["outputs"][0]["datatype"],
        )

    assert (True, True, True, False, "kosine", "BYTES") == await with_triton(service, ask)


@pytest.mark.parametrize("index", ["items", "named"])
@pytest.mark.parametrize("binary", [True, False])
async def test_tritonclient_infers(service: HttpService, index: str, binary: bool) -> None:
    """Unmodified, with tensors as bytes and as JSON: what /cos answers."""
    ids, scores = await found_by_cos(service, index, 3)

    def ask(client: Any, triton: Any) -> Any:
        vectors = triton.InferInput("embedding", list(QUERIES.shape), "FP32")
        vectors.set_data_from_numpy(QUERIES, binary_data=binary)
        count = triton.InferInput("k", [1], "INT32")
        count.set_data_from_numpy(np.array([3], np.int32), binary_data=binary)
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("ids", "scores")]
        found = client.infer(index, [vectors, count], outputs=outputs, request_id="mine")
        return found.get_response()["id"], found.as_numpy("ids"), found.as_numpy("scores")

    id_, found_ids, found_scores = await with_triton(service, ask)

    as_text = [each.decode() if isinstance(each, bytes) else each for each in found_ids.ravel().tolist()]
    assert ("mine", ids, scores) == (id_, as_text, found_scores.ravel().tolist())
    assert (2, 3) == found_scores.shape == found_ids.shape


async def test_tritonclient_names_masks(service: HttpService) -> None:
    """As parameters of the request; where they leave less than k, outputs are so much narrower."""

    def ask(client: Any, triton: Any) -> Any:
        vectors = triton.InferInput("embedding", list(QUERIES.shape), "FP32")
        vectors.set_data_from_numpy(QUERIES)
        parameters = {"k": 4, "mask": "in_stock", "not_mask": "new"}
        return client.infer("items", [vectors], parameters=parameters).as_numpy("ids").tolist()

    assert [[0, 2], [2, 0]] == await with_triton(service, ask)


async def test_the_example_of_the_docs_runs(service: HttpService) -> None:
    """docs/http.md, with another port."""
    pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
    section = (DOCS / "http.md").read_text(encoding="utf-8").split("## Inference protocol")[1]
    example = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert example is not None
    code = example[1].replace("127.0.0.1:8080", f"{service.host}:{service.port}")

    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert (0, "") == (done.returncode, done.stderr)


async def test_tritonclient_understands_a_refusal(service: HttpService) -> None:
    """Its exception carries our text."""

    def ask(client: Any, triton: Any) -> str:
        vectors = triton.InferInput("embedding", [1, 3], "FP32")
        vectors.set_data_from_numpy(np.ones((1, 3), np.float32))
        try:
            client.infer("items", [vectors])
        except Exception as error:  # noqa: BLE001  tritonclient has no public name of it in this module
            return str(error)
        return "answered"

    assert "dim_mismatch: query 0: expected 4 numbers" in await with_triton(service, ask)
