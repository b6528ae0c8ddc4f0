"""Both clients, against the service and against servers that misbehave, over real sockets."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import pytest

from kosine import AsyncClient, Client
from kosine.client import Matches, UnexpectedAnswer, Unreachable
from kosine.errors import (
    BadCursor,
    DeadlineExceeded,
    DimMismatch,
    IndexNotReady,
    KosineError,
    NotFound,
    Overloaded,
    TooManyIds,
    UnknownId,
    UnknownIndex,
    UnknownMask,
    VersionGone,
    VersionMismatch,
    ZeroVector,
)
from kosine.retries import RetryPolicy
from tests.kit.engines import NumpyEngine, matrix_of
from tests.kit.generated_docs import DOCS
from tests.kit.http_service import http_service
from tests.kit.ports import free_port
from tests.kit.scripted_http import DROP, http_response, scripted_http

PAGE = (DOCS / "client.md").read_text(encoding="utf-8")
ONE = [1.0, 0.0, 0.0, 0.0]
AT_ONCE = RetryPolicy(attempts=4, first=0.001)
ANSWER = http_response(msgspec.msgpack.encode({"result": [(7, 0.5)], "version": "v1"}))
BUSY = http_response(
    b'{"code": "overloaded", "detail": "full"}',
    status="429 Too Many Requests",
    headers="Retry-After: 0\r\nContent-Type: application/problem+json\r\n",
)
BAD_GATEWAY = http_response(b"<html>bad gateway</html>", status="502 Bad Gateway")
BOTH = pytest.mark.parametrize("kind", [Client, AsyncClient])


async def ask(kind: type[Client | AsyncClient], url: str, method: str, *args: Any, **options: Any) -> Any:
    """The answer to one call of a fresh client of either kind; of pages all of them."""
    made = {name: options.pop(name) for name in ("index", "timeout", "headers") if name in options}
    if kind is AsyncClient:
        async with AsyncClient(url, retries=AT_ONCE, **made) as awaited:
            answer = getattr(awaited, method)(*args, **options)
            return [page async for page in answer] if isinstance(answer, AsyncIterator) else await answer

    def wait() -> Any:
        with Client(url, retries=AT_ONCE, **made) as client:
            answer = getattr(client, method)(*args, **options)
            return [*answer] if isinstance(answer, Iterator) else answer

    return await asyncio.to_thread(wait)


@BOTH
@pytest.mark.parametrize("ids", [None, np.array([10, 11, 12, 13]), np.array(["a", "b", "c", "d"])])
async def test_a_search_finds_what_the_service_answers(
    kind: type[Client | AsyncClient], ids: np.ndarray[Any, Any] | None
) -> None:
    """Ids of their type, scores as float32 to the last bit, best first, with the version."""
    async with http_service() as service:
        service.publish(ids=ids)
        found = await ask(kind, service.url, "search", np.array([3.0, 2.0, 1.0, 0.5]), k=3, index="items")

    expected = np.arange(4) if ids is None else ids
    assert expected[:3].tolist() == found.ids.tolist()
    assert (expected.dtype.kind, np.dtype(np.float32)) == (found.ids.dtype.kind, found.scores.dtype)
    assert np.linalg.norm([3.0, 2.0, 1.0, 0.5]) * found.scores == pytest.approx([3.0, 2.0, 1.0], rel=1e-6)
    assert ("v1", 3) == (found.version, len(found))
    assert list(found) == [*zip(found.ids.tolist(), found.scores.tolist(), strict=True)]


@BOTH
@pytest.mark.parametrize("rows", [1, 3, 256])
async def test_rows_are_answered_in_their_order(kind: type[Client | AsyncClient], rows: int) -> None:
    """Each as it would be alone, all by one version; one row is a list of one."""
    queries = np.random.default_rng(rows).standard_normal((rows, 4))
    async with http_service() as service:
        service.publish()
        found = await ask(kind, service.url, "search_many", queries, k=2, index="items")
        alone = [
            await ask(kind, service.url, "search", row, k=2, index="items")
            for row in (queries[0], queries[-1])
        ]

    assert rows == len(found)
    for one, other in zip(alone, (found[0], found[-1]), strict=True):
        assert (one.ids.tolist(), one.scores.tolist()) == (other.ids.tolist(), other.scores.tolist())
    assert {"v1"} == {each.version for each in found}


@BOTH
async def test_a_bad_row_is_told_by_its_number(kind: type[Client | AsyncClient]) -> None:
    """The whole is refused."""
    async with http_service() as service:
        service.publish()
        with pytest.raises(ZeroVector) as refused:
            await ask(kind, service.url, "search_many", np.diag([1.0, 1, 0, 1]), index="items")

    assert [2] == refused.value.facts["rows"]


@BOTH
async def test_without_an_index_the_default_one_is_asked(kind: type[Client | AsyncClient]) -> None:
    """Of the service, unless the client has one; of a call before both."""
    async with http_service() as service:
        for name in ("items", "users"):
            service.publish(name, version=f"version of {name}")
        service.default_index = "users"

        found = [
            await ask(kind, service.url, "search", ONE),
            await ask(kind, service.url, "search", ONE, index="items"),
        ]

    assert ["version of users", "version of items"] == [each.version for each in found]


STORED = np.array([[4.0, 0, 0, 0], [3, 1, 0, 0], [2, 2, 0, 0], [1, 3, 0, 0]])


@BOTH
@pytest.mark.parametrize("names", [None, np.array(["a", "bb", "ccc", "dddd"])])
async def test_what_is_asked_of_items_is_what_is_found(
    kind: type[Client | AsyncClient], names: np.ndarray[Any, Any] | None
) -> None:
    """By id, without some, among some, above a score, with vectors; ids may be NumPy's."""
    ids = np.arange(4) if names is None else names
    async with http_service() as service:
        service.publish(engine=NumpyEngine(matrix=matrix_of(STORED)), ids=names)
        one = await ask(kind, service.url, "search_id", ids[1], index="items")
        itself = await ask(
            kind, service.url, "search_id", ids[1].item(), index="items", include_self=True, k=1
        )
        several = await ask(kind, service.url, "search_ids", ids[[0, 3]], index="items", k=1)
        without = await ask(kind, service.url, "search", STORED[0], index="items", exclude=ids[:2])
        among = await ask(
            kind, service.url, "search_many", STORED[:2], index="items", include=ids[2:], with_embeddings=True
        )
        above = await ask(kind, service.url, "search", STORED[0], index="items", min_score=0.9)

    assert ids[[0, 2, 3]].tolist() == one.ids.tolist()
    assert ids[[1]].tolist() == itself.ids.tolist()
    assert [ids[[1]].tolist(), ids[[2]].tolist()] == [each.ids.tolist() for each in several]
    assert (ids[2:].tolist(), None) == (without.ids.tolist(), without.embeddings)
    assert [ids[2:].tolist()] * 2 == [each.ids.tolist() for each in among]
    unit = STORED[2:] / np.linalg.norm(STORED[2:], axis=1, keepdims=True)
    assert np.allclose(unit, among[0].embeddings)
    assert ids[:2].tolist() == above.ids.tolist()


@BOTH
async def test_a_mask_is_asked_for_by_its_name(kind: type[Client | AsyncClient]) -> None:
    """Or its negation, beside vectors and items; an unknown one is an error that names those there are."""
    async with http_service() as service:
        engine = NumpyEngine(matrix=matrix_of(STORED))
        service.publish(
            engine=engine, masks={"even": [True, False, True, False], "new": [False, True, True, True]}
        )
        one = await ask(kind, service.url, "search", STORED[0], index="items", mask="even")
        several = await ask(
            kind, service.url, "search_ids", [0, 1], index="items", mask="new", not_mask="even"
        )
        with pytest.raises(UnknownMask) as refused:
            await ask(kind, service.url, "search", STORED[0], index="items", not_mask="gone")

    assert [0, 2] == one.ids.tolist()
    assert [[1, 3], [3]] == [each.ids.tolist() for each in several]
    assert ["even", "new"] == refused.value.facts["known"]


@BOTH
@pytest.mark.parametrize("names", [None, np.array(["a/b", "..", "c d", "7"])])
async def test_pages_are_gone_through(
    kind: type[Client | AsyncClient], names: np.ndarray[Any, Any] | None
) -> None:
    """To the last item, each once; by a vector or an item, filtered, with vectors, from a cursor on."""
    ids = np.arange(4) if names is None else names
    async with http_service() as service:
        service.publish(engine=NumpyEngine(matrix=matrix_of(STORED)), ids=names)

        async def pages(method: str, query: Any, **options: Any) -> list[Matches]:
            found: list[Matches] = await ask(kind, service.url, method, query, index="items", **options)
            return found

        by_vector = await pages("pages", STORED[0], k=3)
        by_item = await pages("pages_id", ids[0], k=1, exclude=ids[2:3])
        rest = await pages("pages", STORED[0], after=by_vector[0].next, k=1, with_embeddings=True)
        nothing = await pages("pages", STORED[0], min_score=2.0)

    assert [ids[:3].tolist(), ids[3:].tolist()] == [page.ids.tolist() for page in by_vector]
    assert [[ids[1]], [ids[3]]] == [page.ids.tolist() for page in by_item]
    assert by_vector[1].scores.tolist() == rest[0].scores.tolist()
    assert rest[0].embeddings is not None
    assert ([0], (1, 4)) == ([len(page) for page in nothing], rest[0].embeddings.shape)
    assert [None, None, None, None] == [found[-1].next for found in (by_vector, by_item, rest, nothing)]


async def test_a_page_is_asked_for_when_it_is_wanted() -> None:
    """Who takes one page costs the service one; a new version ends the walk with both versions told."""
    async with http_service() as service:
        service.publish(version="v1")
        async with AsyncClient(service.url, index="items") as client:
            walk = client.pages(ONE, k=1)
            first = await anext(walk)
            service.publish(version="v2")
            with pytest.raises(VersionGone) as gone:
                await anext(walk)
            with pytest.raises(BadCursor):
                await anext(client.pages(ONE, after="x"))
            again = await anext(client.pages(ONE, k=1))

    assert ("v1", "v2", "v2") == (first.version, gone.value.facts["version"], again.version)


@BOTH
@pytest.mark.parametrize("names", [None, np.array(["a/b", "..", "c d?", "7"])])
async def test_stored_vectors_and_scores_of_given_items_are_answered(
    kind: type[Client | AsyncClient], names: np.ndarray[Any, Any] | None
) -> None:
    """float32 in the order asked for, NaN for an item that is none; ids may have any character."""
    ids = np.arange(4) if names is None else names
    gone = 99 if names is None else "gone"
    unit = STORED / np.linalg.norm(STORED, axis=1, keepdims=True)
    async with http_service() as service:
        service.publish(engine=NumpyEngine(matrix=matrix_of(STORED)), ids=names)
        items = [await ask(kind, service.url, "item", each, index="items") for each in ids]
        wanted = [ids[2].item(), gone, ids[0].item()]
        scores = [
            await ask(kind, service.url, "score", STORED[0], wanted, index="items", expect_version="v1"),
            await ask(kind, service.url, "score_id", ids[0], wanted, index="items"),
        ]

    assert [(each, "v1") for each in ids.tolist()] == [(item.id, item.version) for item in items]
    np.testing.assert_allclose([item.embedding for item in items], unit, rtol=0, atol=1e-6)
    for each in scores:
        np.testing.assert_allclose(each.scores, [unit[2] @ unit[0], np.nan, 1], rtol=0, atol=1e-6)
    assert {np.dtype(np.float32)} == {items[0].embedding.dtype, *(each.scores.dtype for each in scores)}


@BOTH
@pytest.mark.parametrize(
    ("method", "arguments", "expected"),
    [
        ("item", (99,), UnknownId),
        ("item", ("",), NotFound),
        ("score", (ONE, range(10_001)), TooManyIds),
        ("score_id", (99, [1]), UnknownId),
        ("pages_id", (99,), UnknownId),
    ],
)
async def test_what_cannot_be_told_of_items_is_raised_as_its_class(
    kind: type[Client | AsyncClient], method: str, arguments: tuple[Any, ...], expected: type[KosineError]
) -> None:
    """As for searches."""
    async with http_service() as service:
        service.publish()
        with pytest.raises(expected):
            await ask(kind, service.url, method, *arguments, index="items")


def test_items_are_of_a_named_index() -> None:
    """The service has no route for those of its default index; nothing is sent."""
    with Client("http://127.0.0.1:9") as client:
        with pytest.raises(ValueError, match="expected index=NAME"):
            client.item(5)
        with pytest.raises(ValueError, match="expected index=NAME"):
            client.score(ONE, [5])


@BOTH
async def test_nothing_may_be_found(kind: type[Client | AsyncClient]) -> None:
    """An answer of no items, not an error; an unknown id is one."""
    async with http_service() as service:
        service.publish()
        nothing = await ask(kind, service.url, "search", ONE, index="items", min_score=2.0)
        with pytest.raises(UnknownId):
            await ask(kind, service.url, "search_id", 99, index="items")

    assert (0, np.dtype(np.int64)) == (len(nothing), nothing.ids.dtype)


@BOTH
async def test_a_version_may_be_insisted_on(kind: type[Client | AsyncClient]) -> None:
    """Another one does not answer."""
    async with http_service() as service:
        service.publish(version="v1")
        found = await ask(kind, service.url, "search", ONE, index="items", expect_version="v1")
        service.publish(version="v2")
        with pytest.raises(VersionMismatch) as refused:
            await ask(kind, service.url, "search", ONE, index="items", expect_version="v1")

    assert ("v1", "v2") == (found.version, refused.value.facts["version"])


@BOTH
async def test_indexes_are_shown(kind: type[Client | AsyncClient]) -> None:
    """One by name, or all."""
    async with http_service() as service:
        service.publish()
        service.registry.declare("users", source="users.npy", required=True)
        one = await ask(kind, service.url, "index", "items")
        everything = await ask(kind, service.url, "indexes")

    assert ("items", "available", "v1", 4, 4) == (one.name, one.state, one.version, one.rows, one.dim)
    assert [("items", "v1"), ("users", None)] == [(each.name, each.version) for each in everything.indexes]
    assert one == everything.indexes[0]


@BOTH
@pytest.mark.parametrize(
    ("index", "embedding", "expected"),
    [
        ("items", [0.0, 0.0, 0.0, 0.0], ZeroVector),
        ("items", [1.0, 0.0, 0.0], DimMismatch),
        ("other", ONE, UnknownIndex),
        ("a/../items", ONE, UnknownIndex),
        ("users", ONE, IndexNotReady),
    ],
)
async def test_a_refusal_is_raised_as_its_class(
    kind: type[Client | AsyncClient], index: str, embedding: list[float], expected: type[KosineError]
) -> None:
    """With the text and the facts of the service."""
    async with http_service() as service:
        service.publish()
        service.registry.declare("users", source="users.npy", required=True)
        # Only what may be asked again waits, a second: less than that is no time for it.
        timeout = 0.9 if expected is IndexNotReady else 30.0
        with pytest.raises(expected) as refused:
            await ask(kind, service.url, "search", embedding, index=index, timeout=timeout)

    assert refused.value.detail
    assert "request_id" in refused.value.facts


@BOTH
@pytest.mark.parametrize("failure", [BUSY, BAD_GATEWAY, DROP], ids=["429", "502", "broken connection"])
async def test_what_passes_is_asked_again(kind: type[Client | AsyncClient], failure: bytes) -> None:
    """The same request, each time with what is left of the deadline; the caller sees only the answer."""
    async with scripted_http(lambda number: failure if number < 3 else ANSWER) as server:
        found = await ask(kind, f"http://127.0.0.1:{server.port}", "search", ONE, timeout=30.0)

    assert ([7], "v1") == (found.ids.tolist(), found.version)
    assert 4 == len(server.paths)
    assert 1 == len(set(server.paths))
    left = [int(head.lower().split(b"x-request-timeout-ms: ")[1].split(b"\r\n")[0]) for head in server.heads]
    assert sorted(left, reverse=True) == left
    assert 0 < left[-1] <= left[0] <= 30_000


@BOTH
@pytest.mark.parametrize(("failure", "expected"), [(BUSY, Overloaded), (BAD_GATEWAY, UnexpectedAnswer)])
async def test_what_does_not_pass_is_told(
    kind: type[Client | AsyncClient], failure: bytes, expected: type[KosineError]
) -> None:
    """After as many attempts as the policy allows."""
    async with scripted_http(lambda _number: failure) as server:
        with pytest.raises(expected):
            await ask(kind, f"http://127.0.0.1:{server.port}", "search", ONE, timeout=30.0)

    assert AT_ONCE.attempts == len(server.paths)


@BOTH
async def test_a_service_that_is_not_there_is_told_as_such(kind: type[Client | AsyncClient]) -> None:
    """With its place, and without the password of the URL."""
    port = free_port()
    with pytest.raises(Unreachable, match=f"no answer from http://127.0.0.1:{port}: ") as unreachable:
        await ask(kind, f"http://me:secret@127.0.0.1:{port}", "search", ONE)

    assert "secret" not in str(unreachable.value)


@BOTH
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>hello</html>",
        b'{"result": [], "version": "v1"}',
        msgspec.msgpack.encode({"version": "v1"}),
        msgspec.msgpack.encode({"result": 3, "version": "v1"}),
        msgspec.msgpack.encode({"results": [], "version": "v1"}),
        b"\x91" * 100_000,
    ],
)
async def test_an_answer_of_something_else_is_told_as_such(
    kind: type[Client | AsyncClient], body: bytes
) -> None:
    """A 200 that is none of kosine's is neither a match nor a defect; it is not asked for twice."""
    async with scripted_http(lambda _number: http_response(body)) as server:
        with pytest.raises(UnexpectedAnswer, match="expected an answer of kosine"):
            await ask(kind, f"http://127.0.0.1:{server.port}", "search", ONE)

    assert 1 == len(server.paths)


@BOTH
async def test_a_call_ends_with_its_deadline(kind: type[Client | AsyncClient]) -> None:
    """However long the service is silent."""
    async with scripted_http(lambda _number: ANSWER) as server:
        server.gate.clear()
        with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.2 s"):
            await ask(kind, f"http://127.0.0.1:{server.port}", "search", ONE, timeout=0.2)


@BOTH
async def test_an_answer_that_drips_ends_with_the_deadline(kind: type[Client | AsyncClient]) -> None:
    """Each byte comes in time, the answer does not."""
    gone = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # On a machine under load the deadline may come before the request.
        with suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not reader.at_eof():
            writer.write(b" ")
            await asyncio.sleep(0.01)
            if writer.transport.is_closing():
                break
            await _read_a_bit(reader)
        writer.close()
        gone.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(DeadlineExceeded):
            await ask(kind, f"http://127.0.0.1:{port}", "search", ONE, timeout=0.3)
        async with asyncio.timeout(10):
            await gone.wait()
    finally:
        server.close()
        await server.wait_closed()


async def _read_a_bit(reader: asyncio.StreamReader) -> None:
    try:
        async with asyncio.timeout(0.001):
            await reader.read(100)
    except TimeoutError:
        pass


@BOTH
async def test_headers_go_with_every_request(kind: type[Client | AsyncClient]) -> None:
    """For a gateway that wants a token."""
    async with scripted_http(lambda _number: ANSWER) as server:
        await ask(
            kind, f"http://127.0.0.1:{server.port}", "search", ONE, headers={"Authorization": "Bearer t"}
        )

    assert b"authorization: bearer t\r\n" in server.heads[0].lower()


async def test_a_client_keeps_its_connections() -> None:
    """Many tasks share one; a connection is made once and used again."""
    async with http_service() as service:
        service.publish()
        async with AsyncClient(service.url, index="items") as client:
            first: list[Matches] = [await client.search(ONE, k=1) for _ in range(20)]
            assert 1 == service.connections
            many = await asyncio.gather(*(client.search(ONE, k=1) for _ in range(50)))

    assert {"v1"} == {each.version for each in [*first, *many]}


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
async def test_the_examples_of_the_docs_run(example: str) -> None:
    """Each block of docs/client.md by itself, with another port, without an error or a warning."""
    async with http_service() as service:
        service.publish(ids=np.array(["sku-3", "sku-9", "sku-12", "sku-15"]))
        code = example.replace("http://127.0.0.1:8080", service.url)
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-W", "error", "-c", code],
            capture_output=True,
            text=True,
            check=False,
        )

    assert ("", True) == (done.stderr, bool(done.stdout))


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://host", "http://", ""])
def test_a_url_that_leads_nowhere_is_refused_at_once(url: str) -> None:
    """Not at the first call, and not as if the service were down."""
    with pytest.raises(ValueError, match="expected http://HOST:PORT"):
        Client(url)


@pytest.mark.parametrize("embedding", [1.0, np.ones((2, 3, 4)), ["a"]])
def test_what_is_no_embedding_is_refused_before_it_is_sent(embedding: Any) -> None:
    """By NumPy's own words or ours."""
    with Client("http://127.0.0.1:9") as client:
        with pytest.raises(ValueError, match=r"embedding|float"):
            client.search(embedding)
        with pytest.raises(ValueError, match=r"embedding|float"):
            client.search_many(embedding)
