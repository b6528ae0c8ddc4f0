"""Queries in every format, answered in every format, by the service over real sockets."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from kosine.http.bodies.formats import ENCODERS
from tests.kit.http_service import http_service, in_process, service_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import httpx
    from numpy.typing import NDArray

QUERIES = np.array([[3.0, 2.0, 1.0, 0.5], [-1.0, 0.25, 8.0, 2.0]], np.float32)
ARROW = "application/vnd.apache.arrow.stream"
COS = "/indexes/items/cos"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Of a service whose `items` are the four axes, named."""
    async with http_service() as service, service.client() as client:
        service.publish(ids=np.array(["a", "bb", "ccc", "dddd"]))
        yield client


def npy(array: NDArray[Any]) -> bytes:
    np.save(file := io.BytesIO(), array)
    return file.getvalue()


def as_base64(array: NDArray[np.float32]) -> str:
    return base64.b64encode(array.tobytes()).decode()


Written = dict[str, Any]
SENDERS: dict[str, Callable[[NDArray[np.float32]], Written]] = {
    "raw": lambda rows: {"content": rows.tobytes(), "headers": {"Content-Type": "application/octet-stream"}},
    "npy": lambda rows: {"content": npy(rows), "headers": {"Content-Type": "application/x-npy"}},
    "npy, float64, Fortran": lambda rows: {
        "content": npy(np.asfortranarray(rows.astype(np.float64))),
        "headers": {"Content-Type": "application/x-npy"},
    },
}


def read(response: httpx.Response) -> Any:
    """What the answer says, as the JSON answer says it."""
    assert 200 == response.status_code, response.text
    match response.headers["content-type"]:
        case "application/json":
            return response.json()
        case "application/msgpack" | "application/vnd.msgpack":
            return msgspec.msgpack.decode(response.content)
        case "application/x-npz":
            return _of_npz(response.content)
        case _:
            return _of_arrow(response.content)


def _of_npz(content: bytes) -> Any:
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        ids, scores, version = found["ids"].tolist(), found["scores"].tolist(), str(found["version"])
        many = found["ids"].ndim > 1
    if not many:
        return {"result": [*map(list, zip(ids, scores, strict=True))], "version": version}
    rows = [[*map(list, zip(*each, strict=True))] for each in zip(ids, scores, strict=True)]
    return {"results": rows, "version": version}


def _of_arrow(content: bytes) -> Any:
    nanoarrow = pytest.importorskip("nanoarrow", reason="kosine[arrow] is not installed")
    stream = nanoarrow.ArrayStream.from_readable(content)
    version = dict(stream.schema.metadata.items())[b"version"].decode()
    rows = [
        [*map(list, zip(each["ids"], each["scores"], strict=True))] for each in stream.read_all().to_pylist()
    ]
    return (
        {"result": rows[0], "version": version} if len(rows) == 1 else {"results": rows, "version": version}
    )


@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS.keys())
@pytest.mark.parametrize("rows", [QUERIES[0], QUERIES], ids=["one", "several"])
async def test_every_format_asks_and_answers_the_same(
    client: httpx.AsyncClient, send: Callable[[NDArray[np.float32]], Written], rows: Any
) -> None:
    """To the last bit of each score, JSON being the measure."""
    body = {"embeddings" if rows.ndim == 2 else "embedding": rows.tolist(), "k": 3}
    expected = read(await client.post(COS, json=body))
    written = send(rows)

    for accept in ENCODERS:
        headers = {**written["headers"], "Accept": accept}
        answer = await client.post(COS, params={"k": 3}, content=written["content"], headers=headers)

        assert accept == answer.headers["content-type"]
        assert ("v1", str(len(answer.content))) == (
            answer.headers["kosine-version"],
            answer.headers["content-length"],
        )
        assert expected == read(answer)


async def test_vectors_are_answered_in_every_format(client: httpx.AsyncClient) -> None:
    """Where they are asked for; of several queries those of each."""
    asked = {"embeddings": QUERIES.tolist(), "k": 2, "with_embeddings": True}
    measure = (await client.post(COS, json=asked)).json()["embeddings"]
    answers = {
        accept: (await client.post(COS, json=asked, headers={"Accept": accept})).content
        for accept in ENCODERS
    }

    with np.load(io.BytesIO(answers["application/x-npz"]), allow_pickle=False) as found:
        assert measure == found["embeddings"].tolist()
    assert measure == msgspec.msgpack.decode(answers["application/msgpack"])["embeddings"]
    nanoarrow = pytest.importorskip("nanoarrow", reason="kosine[arrow] is not installed")
    rows = nanoarrow.ArrayStream.from_readable(answers[ARROW]).read_all().to_pylist()
    assert measure == [each["embeddings"] for each in rows]


async def test_base64_stands_for_a_list_of_numbers(client: httpx.AsyncClient) -> None:
    """As an embedding service answers it; in a list, one beside the other."""
    one, other = QUERIES
    expected = read(await client.post(COS, json={"embeddings": [one.tolist(), other.tolist()]}))

    several = await client.post(COS, json={"embeddings": [as_base64(one), other.tolist()]})
    single = await client.post(COS, json={"embedding": as_base64(one)})

    assert expected == read(several)
    assert expected["results"][0] == read(single)["result"]


async def test_what_is_not_written_in_any_format_is_refused(client: httpx.AsyncClient) -> None:
    """406 names what there is; a refusal is a problem whatever is accepted."""
    refused = await client.post(COS, json={"embedding": [1, 0, 0, 0]}, headers={"Accept": "text/csv"})
    wrong = await client.post(COS, json={"embedding": [1]}, headers={"Accept": "application/x-npz"})

    assert (406, "not_acceptable") == (refused.status_code, refused.json()["code"])
    assert (422, "application/problem+json") == (wrong.status_code, wrong.headers["content-type"])


@pytest.mark.parametrize(
    ("headers", "body", "query", "status", "code"),
    [
        ("application/octet-stream", b"", "", 422, "dim_mismatch"),
        ("application/octet-stream", bytes(20), "", 422, "dim_mismatch"),
        ("application/octet-stream", bytes(16), "", 422, "zero_vector"),
        ("application/octet-stream", b"\xff" * 16, "", 422, "not_finite"),
        ("application/octet-stream", b"\x3f" * 16, "?k=0", 422, "bad_k"),
        ("application/octet-stream", b"\x3f" * 16, "?k=1001", 422, "bad_k"),
        ("application/octet-stream", b"\x3f" * 16 * 257, "", 422, "too_many_rows"),
        ("application/x-npy", npy(np.ones((0, 4))), "", 422, "invalid_value"),
        ("application/x-npy", npy(np.ones((4, 0))), "", 422, "dim_mismatch"),
        ("application/x-npy", npy(np.ones(5)), "", 422, "dim_mismatch"),
        ("application/x-npy", npy(np.full(4, 1e39)), "", 422, "not_finite"),
        ("text/csv", b"1,0,0,0", "", 415, "unsupported_media_type"),
    ],
)
async def test_a_body_of_any_format_is_checked_like_json(
    client: httpx.AsyncClient, headers: str, body: bytes, query: str, status: int, code: str
) -> None:
    """The same limits and the same codes."""
    refused = await client.post(COS + query, content=body, headers={"Content-Type": headers})

    assert (status, code) == (refused.status_code, refused.json()["code"])


BYTES = {"Content-Type": "application/octet-stream"}


@pytest.mark.parametrize("ids", [None, np.array([10, 11, 12, -13]), np.array(["a,b", "é d", "7", "x/y"])])
@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS.keys())
async def test_beside_bytes_is_asked_what_json_asks(
    send: Callable[[NDArray[np.float32]], Written], ids: NDArray[Any] | None
) -> None:
    """Each parameter and all together, whatever type ids have: the answer is that of the JSON fields."""
    named: list[Any] = list(range(4)) if ids is None else ids.tolist()
    asked: list[dict[str, Any]] = [
        {"min_score": 0.2},
        {"exclude": named[:1]},
        {"exclude": [named[1], named[3]], "k": 2},
        {"include": [named[2], named[0]]},
        {"mask": "odd"},
        {"not_mask": "odd", "with_embeddings": True},
        {"exclude": named[:1], "include": named[:3], "not_mask": "odd", "min_score": -1.0, "k": 1},
    ]
    async with http_service() as service, service.client() as client:
        service.publish(ids=ids, masks={"odd": [False, True, False, True]})
        for fields in asked:
            expected = await client.post(COS, json={"embedding": QUERIES[0].tolist(), **fields})
            params: dict[str, Any] = {name: as_parameter(value) for name, value in fields.items()}
            answer = await client.post(COS, params=params, **send(QUERIES[0]))

            assert 200 == expected.status_code
            assert expected.json() == answer.json()


def as_parameter(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, bool | float) else value


async def test_an_empty_include_finds_nothing(client: httpx.AsyncClient) -> None:
    """A list of no ids can be said."""
    found = await client.post(f"{COS}?include=", content=QUERIES[0].tobytes(), headers=BYTES)

    assert [] == read(found)["result"]


async def test_bytes_are_answered_page_by_page(client: httpx.AsyncClient) -> None:
    """The pages that JSON is answered; and a cursor of one is good for the other."""
    cursor: str | None = ""
    found: list[str] = []
    while cursor is not None:
        params: dict[str, Any] = {"k": 1, "after": cursor, "exclude": "a"}
        page = read(await client.post(COS, params=params, content=QUERIES[0].tobytes(), headers=BYTES))
        body = {"embedding": QUERIES[0].tolist(), "k": 1, "after": cursor or None, "exclude": ["a"]}
        assert read(await client.post(COS, json=body)) == page
        found += [item for item, _ in page["result"]]
        cursor = page["next"]

    assert ["bb", "ccc", "dddd"] == found


@pytest.mark.parametrize(
    ("ids", "query", "rows", "status", "code"),
    [
        (["a", "bb", "ccc", "dddd"], "?mask=gone", 1, 404, "unknown_mask"),
        (["a", "bb", "ccc", "dddd"], "?after=made-up", 1, 422, "bad_cursor"),
        (["a", "bb", "ccc", "dddd"], "?after=", 2, 422, "invalid_value"),
        (["a", "bb", "ccc", "dddd"], "?id=a", 1, 422, "unknown_field"),
        (["a", "bb", "ccc", "dddd"], "?k=1&k=1", 1, 422, "invalid_value"),
        (["a", "bb", "ccc", "dddd"], "?exclude=" + "x" * 32768, 1, 431, "head_too_large"),
        ([1, 2, 3, 4], "?exclude=a", 1, 422, "invalid_value"),
        ([1, 2, 3, 4], "?include=01", 1, 422, "invalid_value"),
    ],
)
async def test_what_cannot_be_asked_beside_bytes_is_refused(
    ids: list[Any], query: str, rows: int, status: int, code: str
) -> None:
    """With the codes of JSON; a list of ids is no longer than a head."""
    async with http_service() as service, service.client() as client:
        service.publish(ids=np.array(ids))
        refused = await client.post(COS + query, content=QUERIES[:rows].tobytes(), headers=BYTES)

    assert (status, code) == (refused.status_code, refused.json()["code"])


async def test_unknown_ids_beside_bytes_are_ignored(client: httpx.AsyncClient) -> None:
    """As in JSON: a list of what somebody has seen outlives the items."""
    found = await client.post(
        f"{COS}?exclude=gone&exclude=a&k=1", content=QUERIES[0].tobytes(), headers=BYTES
    )

    assert "bb" == read(found)["result"][0][0]


async def test_every_format_is_described() -> None:
    """The schema names what is read and what is written, and the parameters beside a body of bytes."""
    async with service_of() as service, in_process(service.doors.fast) as client:
        schema = (await client.get("/schema")).json()

    for path in ("/cos", "/indexes/{name}/cos"):
        operation = schema["paths"][path]["post"]
        assert {"application/json", "application/octet-stream", "application/x-npy"} == set(
            operation["requestBody"]["content"]
        )
        assert set(ENCODERS) == set(operation["responses"]["200"]["content"])
        assert {
            "k",
            "exclude",
            "include",
            "mask",
            "not_mask",
            "min_score",
            "with_embeddings",
            "after",
        } == {each["name"] for each in operation["parameters"] if each["in"] == "query"}


def test_json_numbers_hold_every_bit_of_a_score() -> None:
    """What the tests above lean on."""
    scores = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    assert np.array_equal(scores, np.array(json.loads(json.dumps(scores.tolist())), np.float32))
