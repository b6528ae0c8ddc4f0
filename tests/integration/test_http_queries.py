"""What a query may ask for beside a vector and k, over HTTP and against an oracle written apart from it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosine.http.wire import MAX_IDS
from kosine.settings import BatchSettings
from tests.kit.engines import NumpyEngine, matrix_of
from tests.kit.http_service import http_service, in_process, service_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx
    from numpy.typing import NDArray

    from tests.kit.http_service import HttpService

LENIENT = {"Prefer": "handling=lenient"}
NAMES = np.array(["a", "b", "c", "d"])


@pytest.fixture(params=["in process", "socket"])
async def caller(request: pytest.FixtureRequest) -> AsyncIterator[Caller]:
    """A service and one way in."""
    if request.param == "socket":
        async with http_service() as service, service.client() as client:
            yield service, client
        return
    async with service_of() as service, in_process(service.doors.documented) as client:
        yield service, client


Caller = tuple["HttpService", "httpx.AsyncClient"]


async def ask(caller: Caller, *, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    """POST a query."""
    return await caller[1].post("/indexes/items/cos", json=body, headers=headers)


def found(answer: httpx.Response) -> list[Any]:
    """Ids of the result, best first."""
    assert 200 == answer.status_code, answer.text
    return [each for each, _ in answer.json()["result"]]


def axis(number: int) -> list[float]:
    """A unit vector of 4 dimensions."""
    return [float(number == each) for each in range(4)]


async def test_a_stored_item_finds_others_and_not_itself(caller: Caller) -> None:
    """The vector of the item is the query; the item is left out unless it is wanted."""
    vectors = np.array([[1.0, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [9, 1, 0, 0]])
    caller[0].publish(engine=NumpyEngine(matrix=matrix_of(vectors)), ids=NAMES)

    assert ["d", "b", "c"] == found(await ask(caller, id="a"))
    assert ["a", "d"] == found(await ask(caller, id="a", k=2, include_self=True))
    assert ["d"] == found(await ask(caller, id="a", k=1))


async def test_without_ids_an_item_is_its_row_number(caller: Caller) -> None:
    """Numbers for numbers, in a list as well."""
    caller[0].publish()
    answer = await ask(caller, ids=[3, 0], k=1, include_self=True)
    assert [[[3, 1.0]], [[0, 1.0]]] == answer.json()["results"]


async def test_an_unknown_item_is_refused_by_name(caller: Caller) -> None:
    """404 for one; of several the whole, or for lenient callers that one."""
    caller[0].publish(ids=NAMES)

    one, strict = await ask(caller, id="z\n"), await ask(caller, ids=["a", "z"])
    lenient = await ask(caller, ids=["a", "z"], k=1, include_self=True, headers=LENIENT)

    assert (404, "unknown_id", "'z\\n'") == (one.status_code, one.json()["code"], one.json()["id"])
    assert (404, "unknown_id", [1]) == (strict.status_code, strict.json()["code"], strict.json()["rows"])
    assert (207, [[["a", 1.0]], None]) == (lenient.status_code, lenient.json()["results"])
    assert ["unknown_id"] == [each["code"] for each in lenient.json()["errors"]]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"id": 1}, "$.id"),
        ({"ids": ["a", 1]}, "$.ids"),
        ({"id": "a", "exclude": [1]}, "$.exclude"),
        ({"id": "a", "include": ["a", 2]}, "$.include"),
        ({"id": True}, "$.id"),
        ({"id": 1.0}, "$.id"),
        ({"id": "a", "exclude": "b"}, "$.exclude"),
        ({"id": "a", "exclude": ["x"] * (MAX_IDS + 1)}, "$.exclude"),
        ({"id": "a", "min_score": "0.5"}, "$.min_score"),
        ({"embedding": axis(0), "include_self": True}, "$.include_self"),
        ({"embedding": axis(0), "id": "a"}, "$"),
        ({"k": 3, "exclude": ["a"]}, "$"),
    ],
)
async def test_what_means_nothing_is_refused_with_its_path(
    caller: Caller, body: dict[str, Any], path: str
) -> None:
    """Texts are no numbers, lists have bounds, and a query has one subject."""
    caller[0].publish(ids=NAMES)
    answer = await ask(caller, **body)
    assert (422, "invalid_value", path) == (answer.status_code, answer.json()["code"], answer.json()["path"])


async def test_excluded_items_are_never_found(caller: Caller) -> None:
    """Others move up; what the index does not hold is ignored."""
    caller[0].publish(ids=NAMES)
    everything = found(await ask(caller, embedding=[4, 3, 2, 1]))
    assert ["a", "b", "c", "d"] == everything
    assert ["b", "d"] == found(
        await ask(caller, embedding=[4, 3, 2, 1], exclude=["a", "c", "gone", "c"], k=2)
    )
    assert [] == found(await ask(caller, embedding=[4, 3, 2, 1], exclude=everything))
    assert everything == found(await ask(caller, embedding=[4, 3, 2, 1], exclude=[]))


async def test_only_included_items_are_found(caller: Caller) -> None:
    """In any order and however often they are named; excluded ones not."""
    caller[0].publish(ids=NAMES)
    query: dict[str, Any] = {"embedding": [4, 3, 2, 1]}
    assert ["b", "d"] == found(await ask(caller, **query, include=["d", "b", "gone", "b"]))
    assert ["b"] == found(await ask(caller, **query, include=["d", "b"], k=1))
    assert ["d"] == found(await ask(caller, **query, include=["d", "b"], exclude=["b"]))
    assert [] == found(await ask(caller, **query, include=[]))
    assert ["d"] == found(await ask(caller, id="b", include=["d", "b"]))


async def test_masks_are_named_by_queries(caller: Caller) -> None:
    """Beside ids, each other and several queries; an item that is the query needs not be in the mask."""
    caller[0].publish(ids=NAMES, masks={"in_stock": [1, 1, 0, 1], "new": [0, 1, 1, 1]})
    query: dict[str, Any] = {"embedding": [4, 3, 2, 1]}
    assert ["a", "b", "d"] == found(await ask(caller, **query, mask="in_stock"))
    assert ["c"] == found(await ask(caller, **query, not_mask="in_stock"))
    assert ["a"] == found(await ask(caller, **query, mask="in_stock", not_mask="new"))
    assert ["d"] == found(await ask(caller, **query, mask="in_stock", exclude=["a", "b"]))
    assert ["b"] == found(await ask(caller, id="c", mask="in_stock", include=["b", "c"]))
    several = await ask(caller, ids=["a", "c"], mask="new", k=1, include_self=True)
    assert [[["b", 0.0]], [["c", 1.0]]] == several.json()["results"]


async def test_an_unknown_mask_is_refused_with_those_that_there_are(caller: Caller) -> None:
    """The whole request, and before its ids are looked at."""
    caller[0].publish(masks={"in_stock": [1, 1, 0, 1], "new": [0, 1, 1, 1]})
    for body in ({"embedding": axis(0), "mask": "gone"}, {"ids": [0, 77], "not_mask": "gone"}):
        refused = await ask(caller, headers=LENIENT, **body)
        told = refused.json()
        assert (404, "unknown_mask", ["in_stock", "new"]) == (
            refused.status_code,
            told["code"],
            told["known"],
        )
    wrong = (await ask(caller, embedding=axis(0), mask=["in_stock"])).json()
    assert ("invalid_value", "$.mask") == (wrong["code"], wrong["path"])


async def test_an_index_tells_of_its_masks(caller: Caller) -> None:
    """By name: what identifies the content, how many items it lets pass, and since when it has served."""
    caller[0].publish(masks={"in_stock": [1, 1, 0, 1]})
    told = (await caller[1].get("/indexes/items")).json()["masks"]
    assert {"in_stock": {"digest", "true", "loaded_at"}} == {name: {*each} for name, each in told.items()}
    assert 3 == told["in_stock"]["true"]


async def test_what_scores_less_than_wanted_is_left_out(caller: Caller) -> None:
    """Equal is enough."""
    caller[0].publish()
    for least, expected in (
        (-1e300, [1, 0, 2, 3]),
        (1e300, []),
        (-2, [1, 0, 2, 3]),
        (0, [1, 0, 2, 3]),
        (0.5, [1]),
        (1, [1]),
        (1.5, []),
    ):
        assert expected == found(await ask(caller, embedding=axis(1), min_score=least))


async def test_vectors_come_with_their_items_where_they_are_wanted(caller: Caller) -> None:
    """In the order of the items, with length 1; also where a filter leaves fewer than k."""
    vectors = np.array([[3.0, 4, 0, 0], [0, 2, 0, 0], [0, 0, 5, 0]])
    caller[0].publish(engine=NumpyEngine(matrix=matrix_of(vectors)))

    one = (await ask(caller, embedding=axis(1), with_embeddings=True, exclude=[2])).json()
    several = (await ask(caller, ids=[0, 2], with_embeddings=True, k=1)).json()

    assert [1, 0] == [each for each, _ in one["result"]]
    first, second = [0.0, 1.0, 0.0, 0.0], [0.6, 0.8, 0.0, 0.0]
    np.testing.assert_allclose(one["embeddings"], [first, second], atol=1e-6)
    np.testing.assert_allclose(several["embeddings"], [[first], [second]], atol=1e-6)


async def test_filters_count_against_the_bytes_of_the_queue(caller: Caller) -> None:
    """429 for whoever brings more ids than may wait; a plain query passes."""
    engine = NumpyEngine(matrix=matrix_of(np.eye(4).repeat(2_500, axis=0)))
    caller[0].publish(engine=engine, batch=BatchSettings(queue_bytes=256 * 1024))  # type: ignore[arg-type]
    refused = await ask(caller, embeddings=[axis(0)] * 10, exclude=list(range(10_000)))
    assert (429, "overloaded") == (refused.status_code, refused.json()["code"])
    assert 200 == (await ask(caller, embedding=axis(0), exclude=list(range(10_000)))).status_code


async def test_a_stored_vector_is_answered_by_its_id(caller: Caller) -> None:
    """Of unit length with metric cosine; ids of either type stand in the path as they are written."""
    vectors = matrix_of(np.array([[3.0, 4, 0, 0], [0, 2, 0, 0]]))
    caller[0].publish("texts", engine=NumpyEngine(matrix=vectors), ids=np.array(["a b", "7"]))
    caller[0].publish("numbers", engine=NumpyEngine(matrix=vectors), ids=np.array([-1, 7]))

    async def get(path: str) -> httpx.Response:
        return await caller[1].get(f"/indexes/{path}")

    by_text, by_number = (await get("texts/items/a%20b")).json(), (await get("numbers/items/-1")).json()
    assert ("a b", -1, "v1") == (by_text["id"], by_number["id"], by_text["version"])
    np.testing.assert_allclose(
        [by_text["embedding"], by_number["embedding"]], [[0.6, 0.8, 0.0, 0.0]] * 2, atol=1e-6
    )
    assert "7" == (await get("texts/items/7")).json()["id"]
    for path in ("texts/items/b", "numbers/items/8", "numbers/items/99999999999999999999"):
        answer = await get(path)
        assert answer.status_code in {404, 422}, path
        assert answer.json()["code"] in {"unknown_id", "invalid_value"}
    pinned = await caller[1].get("/indexes/texts/items/7", headers={"Kosine-Expect-Version": "v0"})
    assert (409, "version_mismatch") == (pinned.status_code, pinned.json()["code"])


@pytest.mark.parametrize("written", ["a/b", "a%2Fb", "a//b", "a%2Fb%2F", "a%3Fb", "%2E%2E", "%2Fa", "%25"])
async def test_an_id_in_a_path_may_have_any_character(caller: Caller, written: str) -> None:
    """Slashes, encoded or not, are part of it; nothing is joined, cut or resolved."""
    vectors = matrix_of(np.array([[3.0, 4, 0, 0]]))
    caller[0].publish(engine=NumpyEngine(matrix=vectors), ids=np.array([unquote(written)]))
    for query in ("", "?x=%2F"):
        answer = await caller[1].get(f"/indexes/items/items/{written}{query}")
        assert unquote(written) == answer.json()["id"]


async def test_given_items_are_scored_in_their_order(caller: Caller) -> None:
    """One that the index does not hold has no score; an item may be the query."""
    vectors = np.array([[1.0, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [-1, 0, 0, 0]])
    caller[0].publish(engine=NumpyEngine(matrix=matrix_of(vectors)), ids=NAMES, max_k=4)

    async def score(**body: Any) -> Any:
        return (await caller[1].post("/indexes/items/score", json=body)).json()

    by_vector = await score(embedding=[1, 0, 0, 0], ids=["d", "gone", "b", "a", "d"])
    by_item = await score(id="a", ids=["a", "c"])

    assert [-1.0, None, 0.707107, 1.0, -1.0] == [each and round(each, 6) for each in by_vector["scores"]]
    assert ([1.0, 0.0], "v1") == (by_item["scores"], by_item["version"])
    assert "unknown_id" == (await score(id="z", ids=["a"]))["code"]
    for wrong in ({"ids": ["a"]}, {"id": "a", "ids": []}, {"id": "a", "embedding": [1], "ids": ["a"]}):
        assert "invalid_value" == (await score(**wrong))["code"]
    assert "unknown_field" == (await score(id="a", ids=["a"], k=3))["code"]


VECTORS = np.random.default_rng(11).standard_normal((40, 4))
QUERIES = np.random.default_rng(12).standard_normal((20, 4)).tolist()
LABELS = np.array([f"sku-{number * 7 % 40}" for number in range(40)])
FLAGS = {
    name: np.random.default_rng(seed).random(40) < share
    for seed, (name, share) in enumerate({"most": 0.9, "half": 0.5, "few": 0.1, "none": 0.0}.items())
}


def oracle(body: dict[str, Any]) -> list[list[str]]:
    """What NumPy finds, in float64, for each query of a body."""
    rows = {label: row for row, label in enumerate(LABELS.tolist())}
    unit = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    subjects = body.get("ids") or (
        [body["id"]] if "id" in body else [None] * len(body.get("embeddings", [0]))
    )
    queries: NDArray[np.float64] = (
        np.array([unit[rows[each]] for each in subjects])
        if subjects[0] is not None
        else np.array(body.get("embeddings") or [body["embedding"]], np.float64)
    )
    answers = []
    for query, subject in zip(queries, subjects, strict=True):
        scores = (unit @ (query / np.linalg.norm(query))).astype(np.float32)
        left_out = {*body.get("exclude", []), *([] if body.get("include_self") else [subject])}
        only = body.get("include")
        order = [
            label
            for row in np.argsort(-scores, kind="stable")
            if (label := str(LABELS[row])) not in left_out
            and (only is None or label in only)
            and (body.get("mask") is None or FLAGS[body["mask"]][row])
            and (body.get("not_mask") is None or not FLAGS[body["not_mask"]][row])
            and scores[row] >= body.get("min_score", -2.0)
        ]
        answers.append(order[: body["k"]])
    return answers


_LABEL = st.sampled_from(LABELS.tolist())
_VECTOR = st.sampled_from(QUERIES)
_SUBJECT = st.one_of(
    st.fixed_dictionaries({"embedding": _VECTOR}),
    st.fixed_dictionaries({"embeddings": st.lists(_VECTOR, min_size=1, max_size=4)}),
    st.fixed_dictionaries({"id": _LABEL}, optional={"include_self": st.booleans()}),
    st.fixed_dictionaries({"ids": st.lists(_LABEL, min_size=1, max_size=4)}),
)
_WISHES = st.fixed_dictionaries(
    {"k": st.integers(1, 50)},
    optional={
        "exclude": st.lists(_LABEL | st.just("gone"), max_size=40),
        "include": st.lists(_LABEL | st.just("gone"), max_size=40),
        "mask": st.sampled_from([*FLAGS]),
        "not_mask": st.sampled_from([*FLAGS]),
        "min_score": st.floats(-1, 1),
    },
)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(_SUBJECT, _WISHES), min_size=1, max_size=8))
def test_any_mix_of_queries_at_once_is_exact(mix: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    """Whatever shares an engine call, everybody gets what NumPy finds for them alone."""
    bodies = [{**subject, **wishes} for subject, wishes in mix]

    async def asked() -> list[httpx.Response]:
        async with service_of() as service, in_process(service.doors.fast) as client:
            engine = NumpyEngine(matrix=matrix_of(VECTORS))
            service.publish(engine=engine, ids=LABELS, masks=FLAGS, batch=BatchSettings(max_rows=5))
            return await asyncio.gather(*(client.post("/indexes/items/cos", json=body) for body in bodies))

    for body, answer in zip(bodies, asyncio.run(asked()), strict=True):
        assert 200 == answer.status_code, answer.text
        told = answer.json()
        results = told["results"] if "results" in told else [told["result"]]
        assert oracle(body) == [[each for each, _ in result] for result in results]
