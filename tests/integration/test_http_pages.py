"""Pages over HTTP: a walk is one order of one version, and a cursor is good for nothing else."""

from __future__ import annotations

import asyncio
import io
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import nanoarrow as na
import numpy as np
import pytest

from kosine.errors import NotFinite
from kosine.http.wire import MAX_IDS
from kosine.serving.cursors import CURSOR_PATTERN
from tests.kit.device import cpu_device
from tests.kit.engines import matrix_of
from tests.kit.http_service import in_process, service_of
from tests.kit.oracle import assert_exact, tolerance, true_scores
from tests.kit.serving import masks_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx
    from numpy.typing import NDArray

    from kosine.engines.engine import Engine
    from tests.kit.http_service import HttpService

NAMES = np.array(["a", "b", "c", "d"])
QUERY = [4.0, 3, 2, 1]


@pytest.fixture
async def service() -> AsyncIterator[HttpService]:
    """Four items, along the axes, named."""
    async with service_of() as started:
        started.publish(ids=NAMES)
        yield started


@pytest.fixture
async def client(service: HttpService) -> AsyncIterator[httpx.AsyncClient]:
    """Calls the fast path in process."""
    async with in_process(service.doors.fast) as caller:
        yield caller


async def ask(client: httpx.AsyncClient, **body: Any) -> Any:
    """What a query is answered, also where it is refused."""
    return (await client.post("/indexes/items/cos", json=body)).json()


async def walk(client: httpx.AsyncClient, **body: Any) -> list[list[tuple[Any, float]]]:
    """The results of all pages."""
    pages, cursor = [], None
    while True:
        page = await ask(client, **body, after=cursor)
        pages.append([(each, score) for each, score in page["result"]])
        cursor = page["next"]
        if cursor is None:
            return pages


async def tensorflow(vectors: NDArray[np.float32], *, metric: str = "cosine", max_k: int = 1_000) -> Engine:
    """An engine that is built as a loader does it: in a thread."""
    matrix = matrix_of(vectors, normalise=metric == "cosine")

    def build() -> Engine:
        return cpu_device().build(matrix, metric=metric, max_k=max_k, max_rows=128)

    return await asyncio.to_thread(build)


async def test_pages_follow_each_other_and_end(client: httpx.AsyncClient) -> None:
    """`next` is null with the last item, not a page later; k may change on the way."""
    assert [["a", "b"], ["c", "d"]] == [
        [each for each, _ in page] for page in await walk(client, embedding=QUERY, k=2)
    ]
    assert [3, 1] == [len(page) for page in await walk(client, embedding=QUERY, k=3)]
    assert [4] == [len(page) for page in await walk(client, embedding=QUERY)]
    assert [["b"], ["d"]] == [
        [each for each, _ in page] for page in await walk(client, id="a", k=1, exclude=["c"])
    ]
    assert [[]] == await walk(client, embedding=QUERY, include=[])
    assert [[]] == await walk(client, embedding=QUERY, min_score=1e300)

    first = await ask(client, embedding=QUERY, k=1, after=None)
    rest = await ask(client, embedding=QUERY, k=3, after=first["next"], with_embeddings=True)
    assert (["b", "c", "d"], None) == ([each for each, _ in rest["result"]], rest["next"])
    assert 3 == len(rest["embeddings"])


@pytest.mark.parametrize("ids", [None, NAMES])
async def test_a_cursor_depends_on_rows_and_not_on_how_they_are_named(service: HttpService, ids: Any) -> None:
    """Ids that the index does not hold, order and repetition change nothing of what is left out."""
    service.publish(ids=ids)
    first, unknown = (2, 99) if ids is None else ("c", "z")
    async with in_process(service.doors.fast) as client:
        cursor = (await ask(client, embedding=QUERY, k=1, exclude=[first], after=None))["next"]
        for exclude in ([first], [unknown, first, first]):
            for other in ({}, {"with_embeddings": True}):
                page = await ask(client, embedding=QUERY, k=1, exclude=exclude, after=cursor, **other)
                assert (1 if ids is None else "b") == page["result"][0][0]


async def test_a_walk_goes_through_what_a_mask_lets_pass(
    service: HttpService, client: httpx.AsyncClient
) -> None:
    """And only while the mask is the one it began with: pages repeat no item and skip none."""
    flags = {"in_stock": [True, False, True, True], "new": [True, True, True, False]}
    version = service.publish(ids=NAMES, masks=flags)
    wanted = {"embedding": QUERY, "k": 1}
    assert [["a"], ["c"], ["d"]] == [
        [each for each, _ in page] for page in await walk(client, **wanted, mask="in_stock")
    ]
    assert [["d"]] == [[each for each, _ in page] for page in await walk(client, **wanted, not_mask="new")]

    cursor = (await ask(client, **wanted, mask="in_stock", not_mask="new", after=None))["next"]
    assert cursor is None
    cursor = (await ask(client, **wanted, mask="in_stock", after=None))["next"]
    for other in ({}, {"mask": "new"}, {"not_mask": "in_stock"}, {"mask": "in_stock", "not_mask": "new"}):
        assert "bad_cursor" == (await ask(client, **wanted, **other, after=cursor))["code"]
    version.masks = masks_of({"in_stock": [True, True, False, True]})
    assert "bad_cursor" == (await ask(client, **wanted, mask="in_stock", after=cursor))["code"]
    version.masks = masks_of(flags)
    assert "c" == (await ask(client, **wanted, mask="in_stock", after=cursor))["result"][0][0]


async def test_only_who_asks_for_pages_gets_a_cursor(client: httpx.AsyncClient) -> None:
    """Null and empty begin alike; a cursor is short and fits a URL as it is."""
    assert {"result", "version"} == (await ask(client, embedding=QUERY, k=1)).keys()
    cursor = (await ask(client, embedding=QUERY, k=1, after=""))["next"]
    assert cursor == (await ask(client, embedding=QUERY, k=1, after=None))["next"]
    assert re.fullmatch(CURSOR_PATTERN, cursor)
    assert len(cursor) < 48


async def test_a_cursor_of_a_version_that_is_gone_is_refused(
    service: HttpService, client: httpx.AsyncClient
) -> None:
    """409 with both versions; the version that is served again answers again."""
    cursor = (await ask(client, embedding=QUERY, k=1, after=None))["next"]
    service.publish(version="v2", ids=NAMES)
    gone = await ask(client, embedding=QUERY, k=1, after=cursor)
    assert (409, "version_gone", "v1", "v2") == (
        gone["status"],
        gone["code"],
        gone["expected"],
        gone["version"],
    )
    service.publish(version="v1", ids=NAMES)
    assert ["b"] == [each for each, _ in (await ask(client, embedding=QUERY, k=1, after=cursor))["result"]]


@pytest.mark.parametrize(
    "other",
    [
        {"embedding": [4.0, 3, 2, 1.5], "exclude": ["d"], "min_score": 0.0},
        {"id": "a", "exclude": ["d"], "min_score": 0.0},
        {"embedding": QUERY, "min_score": 0.0},
        {"embedding": QUERY, "exclude": ["c"], "min_score": 0.0},
        {"embedding": QUERY, "exclude": ["c", "d"], "min_score": 0.0},
        {"embedding": QUERY, "exclude": ["d"], "min_score": 0.1},
        {"embedding": QUERY, "exclude": ["d"]},
        {"embedding": QUERY, "exclude": ["d"], "include": ["a", "b", "c", "d"], "min_score": 0.0},
    ],
)
async def test_a_cursor_of_another_query_is_refused(client: httpx.AsyncClient, other: dict[str, Any]) -> None:
    """With another vector, item, filter or threshold it would be nonsense; said otherwise it is good."""
    query = {"embedding": QUERY, "exclude": ["d"], "min_score": 0.0}
    cursor = (await ask(client, **query, k=1, after=None))["next"]
    refused = await ask(client, **other, k=1, after=cursor)
    assert (422, "bad_cursor", "$.after") == (refused["status"], refused["code"], refused["path"])
    same = {**query, "exclude": ["gone", "d", "d"]}
    assert ["b"] == [each for each, _ in (await ask(client, **same, k=1, after=cursor))["result"]]


async def test_a_cursor_of_another_metric_is_refused(service: HttpService, client: httpx.AsyncClient) -> None:
    """The same bytes have another order by another metric."""
    cursor = (await ask(client, embedding=QUERY, k=1, after=None))["next"]
    service.publish(ids=NAMES, metric="dot")
    assert "bad_cursor" == (await ask(client, embedding=QUERY, k=1, after=cursor))["code"]


async def test_what_is_no_cursor_is_refused(client: httpx.AsyncClient) -> None:
    """Anything made up, cut, longer, or with a character changed; never 500."""
    cursor = (await ask(client, embedding=QUERY, k=1, after=None))["next"]
    made_up = [
        "x",
        "x" * 43,
        "x" * 200,
        "=",
        "ä",
        "a b",
        cursor[:-1],
        cursor[:4],
        cursor + "AAAA",
        cursor + "\n",
    ]
    changed = [
        cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :] for at in range(len(cursor))
    ]
    for each in (*made_up, *changed):
        code = (await ask(client, embedding=QUERY, k=1, after=each)).get("code")
        assert code in {"bad_cursor", "version_gone"}, each
    for wrong in (5, True, ["a"]):
        assert "$.after" == (await ask(client, embedding=QUERY, after=wrong))["path"]


async def test_pages_are_of_one_query(client: httpx.AsyncClient) -> None:
    """Several are refused, also one in a list: there is one `next`."""
    for several in ({"embeddings": [QUERY, QUERY]}, {"ids": ["a"]}):
        refused = await ask(client, **several, after=None)
        assert (422, "invalid_value", "$.after") == (refused["status"], refused["code"], refused["path"])


async def test_every_format_tells_the_cursor(client: httpx.AsyncClient) -> None:
    """MessagePack as JSON; an npz has a member and an Arrow stream metadata, empty at the end."""

    async def answered(accept: str, **body: Any) -> bytes:
        headers = {"Accept": accept}
        answer = await client.post("/indexes/items/cos", json={"embedding": QUERY, **body}, headers=headers)
        return answer.content

    cursor = (await ask(client, embedding=QUERY, k=3, after=None))["next"]
    for after, expected in ((None, cursor), (cursor, "")):
        wanted = {"k": 3, "after": after}
        packed = msgspec.msgpack.decode(await answered("application/msgpack", **wanted))
        arrays = np.load(io.BytesIO(await answered("application/x-npz", **wanted)))
        stream = na.ArrayStream.from_readable(await answered("application/vnd.apache.arrow.stream", **wanted))
        assert (expected or None) == packed["next"]
        assert expected == str(arrays["next"])
        assert expected.encode() == dict(stream.schema.metadata)[b"next"]
    assert "next" not in np.load(io.BytesIO(await answered("application/x-npz")))


async def test_pages_do_not_depend_on_what_is_asked_beside_them() -> None:
    """Over TensorFlow, each page in a batch of another size, and rows that tie: one exact order."""
    random = np.random.default_rng(7)
    vectors = random.standard_normal((3_000, 16), dtype=np.float32)
    vectors[1_500:] = vectors[:1_500]
    query = random.standard_normal(16).astype(np.float32)
    async with service_of() as service, in_process(service.doors.fast) as client:
        service.publish(engine=await tensorflow(vectors), max_k=1_000)

        async def page(cursor: str | None, k: int, beside: int) -> Any:
            others = [ask(client, embedding=random.standard_normal(16).tolist(), k=9) for _ in range(beside)]
            body = {"embedding": query.tolist(), "k": k, "after": cursor}
            return (await asyncio.gather(ask(client, **body), *others))[0]

        sizes = [1, 700, 3, 16, 1_000, 41, 900, 400]
        result, cursor = [], None
        for beside, size in enumerate(sizes):
            answer = await page(cursor, size, beside)
            result += answer["result"]
            cursor = answer["next"]
        whole = [pair for each in await walk(client, embedding=query.tolist(), k=1_000) for pair in each]

    assert cursor is None
    assert [tuple(pair) for pair in result] == whole
    rows, scores = (np.array([[pair[at] for pair in whole]]) for at in (0, 1))
    found = rows.astype(np.int32), scores.astype(np.float32)
    assert_exact(found, true_scores(vectors, query[None]), 3_000, within=tolerance(16))


async def test_pages_share_a_batch_with_queries_of_every_kind(service: HttpService) -> None:
    """Filters, plain queries, pages and scores in one engine call; each is answered as if alone."""
    query = {"embedding": QUERY, "k": 2}
    bodies = [
        {**query, "after": None},
        query,
        {**query, "exclude": ["a"]},
        {**query, "min_score": 0.6, "after": ""},
    ]
    async with in_process(service.doors.documented) as client:
        alone = [await ask(client, **body) for body in bodies]
        together, scores = await asyncio.gather(
            asyncio.gather(*(ask(client, **body) for body in bodies * 3)),
            client.post("/indexes/items/score", json={"embedding": QUERY, "ids": ["d", "a"]}),
        )
    assert alone * 3 == together
    assert np.allclose(scores.json()["scores"], np.array([1, 4]) / np.sqrt(30))


async def test_a_page_fails_alone(service: HttpService, client: httpx.AsyncClient) -> None:
    """A dot product that overflows is refused; pages and queries beside it are answered."""
    large = np.full((4, 4), 1e30, np.float32)
    service.publish(engine=await tensorflow(large, metric="dot"), ids=NAMES, metric="dot")
    small, huge = {"embedding": [1, 0, 0, 0]}, {"embedding": [1e30, 0, 0, 0]}
    *refused, good, plain = await asyncio.gather(
        ask(client, **huge, after=None),
        client.post("/indexes/items/score", json={**huge, "ids": ["a"]}),
        ask(client, **small, after=None),
        ask(client, **small),
    )
    assert [NotFinite.code] * 2 == [refused[0]["code"], refused[1].json()["code"]]
    assert good["result"] == plain["result"]


async def test_more_items_than_max_k_are_scored_and_more_than_ids_are_read_are_refused(
    service: HttpService, client: httpx.AsyncClient
) -> None:
    """No k was sent, so none can be bad; the limit of a list of ids is named."""
    vectors = np.random.default_rng(2).standard_normal((12_000, 8), dtype=np.float32)
    service.publish(engine=await tensorflow(vectors), max_k=10, k=10)
    ids = np.random.default_rng(3).integers(0, 12_000, MAX_IDS).tolist()
    query = vectors[0].tolist()

    answer = await client.post("/indexes/items/score", json={"embedding": query, "ids": ids})
    refused = await client.post("/indexes/items/score", json={"id": 0, "ids": [*ids, 1]})

    truth = true_scores(vectors, vectors[:1])[0][ids]
    np.testing.assert_allclose(answer.json()["scores"], truth, rtol=0, atol=tolerance(8))
    assert (422, "too_many_ids", MAX_IDS) == (
        refused.status_code,
        refused.json()["code"],
        refused.json()["limit"],
    )


async def test_a_large_k_is_answered_in_every_format() -> None:
    """16,384 of 20,000 items by TensorFlow: as JSON, MessagePack, npz, Arrow, and as pages of that size."""
    vectors = np.random.default_rng(9).standard_normal((20_000, 4), dtype=np.float32)
    query = vectors[7].tolist()
    async with service_of() as service, in_process(service.doors.fast) as client:
        service.publish(engine=await tensorflow(vectors, max_k=16_384), max_k=16_384)

        async def answered(accept: str) -> bytes:
            body, headers = {"embedding": query, "k": 16_384}, {"Accept": accept}
            return (await client.post("/indexes/items/cos", json=body, headers=headers)).content

        pairs = msgspec.json.decode(await answered("application/json"))["result"]
        packed = msgspec.msgpack.decode(await answered("application/msgpack"))["result"]
        arrays = np.load(io.BytesIO(await answered("application/x-npz")))
        stream = await answered("application/vnd.apache.arrow.stream")
        pages = await walk(client, embedding=query, k=16_384)

    [row] = na.ArrayStream.from_readable(stream).read_all().to_pylist()
    rows, scores = (np.array([[pair[at] for pair in pairs]]) for at in (0, 1))
    found = rows.astype(np.int32), scores.astype(np.float32)
    assert_exact(found, true_scores(vectors, vectors[7:8]), 16_384, within=tolerance(4))
    assert [*map(tuple, pairs)] == [*map(tuple, packed)]
    assert rows[0].tolist() == arrays["ids"].tolist() == row["ids"]
    assert [16_384, 3_616] == [len(page) for page in pages]
    assert {*range(20_000)} == {each for page in pages for each, _ in page}
    assert all(first >= second for page in pages for (_, first), (_, second) in pairwise(page))
