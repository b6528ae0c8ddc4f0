"""What a body may be, and which refusal each other body gets (rows H2, H4-H6, H8-H10 of the catalogue)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from kosine.errors import BadK, RequestError, UnknownIndex
from kosine.http.problems import printable, problem_reply
from kosine.http.wire import MAX_DEPTH, CosQuery, checked_name, decode_query, decode_request, encode_result
from kosine.serving.batch import Answer
from kosine.serving.query import check_k
from kosine.serving.request import SearchResult


def code_of(body: bytes) -> str:
    try:
        decode_request(body)
    except RequestError as error:
        return error.code
    return "ok"


def refusal_of(body: bytes) -> RequestError:
    with pytest.raises(RequestError) as refused:
        decode_request(body)
    return refused.value


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


GOOD: dict[str, tuple[bytes, CosQuery]] = {
    "floats": (b'{"embedding": [1.5, -2e3], "k": 3}', CosQuery([1.5, -2000.0], 3)),
    "integers": (b'{"embedding": [1, 0]}', CosQuery([1.0, 0.0])),
    "empty vector": (b'{"embedding": []}', CosQuery([])),
    "other order and space": (b' {\n"k":1 ,\t"embedding":[0] }\r\n', CosQuery([0.0], 1)),
    "escaped key": (b'{"embedd\\u0069ng": [1]}', CosQuery([1.0])),
    "H10 duplicate embedding": (b'{"embedding": [1], "embedding": [2]}', CosQuery([2.0])),
    "several": (b'{"embeddings": [[1], [2, 3]], "k": 2}', CosQuery(embeddings=[[1.0], [2.0, 3.0]], k=2)),
    "H10 duplicate k": (b'{"embedding": [1], "k": 1, "k": 2}', CosQuery([1.0], 2)),
}


@pytest.mark.parametrize(("body", "expected"), GOOD.values(), ids=GOOD.keys())
def test_a_good_body_decodes(body: bytes, expected: CosQuery) -> None:
    """Any JSON spelling of a query is that query; of duplicate keys the last one counts."""
    assert expected == decode_query(body)


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "bad_json"),
    "space": (b"  ", "bad_json"),
    "cut": (b'{"embedding": [1, 2', "bad_json"),
    "trailing bytes": (b'{"embedding": [1]} x', "bad_json"),
    "two documents": (b'{"embedding": [1]}{"embedding": [1]}', "bad_json"),
    "trailing comma": (b'{"embedding": [1,]}', "bad_json"),
    "single quotes": (b"{'embedding': [1]}", "bad_json"),
    "leading zero": (b'{"embedding": [01]}', "bad_json"),
    "H2 NaN": (b'{"embedding": [NaN]}', "bad_json"),
    "H2 Infinity": (b'{"embedding": [-Infinity]}', "bad_json"),
    "H2 1e400": (b'{"embedding": [1e400]}', "bad_json"),
    "H2 a 400-digit integer": (b'{"embedding": [1' + b"0" * 400 + b"]}", "bad_json"),
    "H2 NaN behind a wrong type": (b'{"embedding": "x", "k": NaN}', "bad_json"),
    "lone surrogate": (b'{"\\ud800": 1}', "bad_json"),
    "H4 string": (b'{"embedding": ["1"]}', "invalid_value"),
    "H4 null": (b'{"embedding": [null]}', "invalid_value"),
    "H4 null vector": (b'{"embedding": null}', "invalid_value"),
    "H4 bool": (b'{"embedding": [true]}', "invalid_value"),
    "H4 nested": (b'{"embedding": [[1, 2], [3]]}', "invalid_value"),
    "H4 object": (b'{"embedding": {"0": 1}}', "invalid_value"),
    "H4 array at the top": (b"[1, 2]", "invalid_value"),
    "H4 string at the top": (b'"x"', "invalid_value"),
    "H4 no embedding": (b'{"k": 1}', "invalid_value"),
    "one and several": (b'{"embedding": [1], "embeddings": [[1]]}', "invalid_value"),
    "several, flat": (b'{"embeddings": [1]}', "invalid_value"),
    "several, null": (b'{"embeddings": null}', "invalid_value"),
    "H5 1.5": (b'{"embedding": [1], "k": 1.5}', "bad_k"),
    "H5 1.0": (b'{"embedding": [1], "k": 1.0}', "bad_k"),
    "H5 string": (b'{"embedding": [1], "k": "10"}', "bad_k"),
    "H5 bool": (b'{"embedding": [1], "k": true}', "bad_k"),
    "H5 null": (b'{"embedding": [1], "k": null}', "bad_k"),
    "H5 array": (b'{"embedding": [1], "k": [1]}', "bad_k"),
    "H5 1e400": (b'{"embedding": [1], "k": 1e400}', "bad_k"),
    "H5 5,000 digits": (b'{"embedding": [1], "k": 1' + b"0" * 5000 + b"}", "bad_k"),
    "H8 just too deep": (b'{"embedding": ' + nested(MAX_DEPTH) + b"}", "json_too_deep"),
    "H8 100 levels": (nested(100), "json_too_deep"),
    "H8 5,000 levels": (nested(5_000), "json_too_deep"),
    "H8 100,000 levels": (nested(100_000), "json_too_deep"),
    "H8 100,000 unclosed": (b"[" * 100_000, "json_too_deep"),
    "H8 100,000 objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "json_too_deep"),
    "H8 deep in an unknown field": (b'{"embedding": [1], "x": ' + nested(50) + b"}", "json_too_deep"),
    "H8 just deep enough": (b'{"embedding": ' + nested(MAX_DEPTH - 1) + b"}", "invalid_value"),
    "H8 brackets in strings": (b'{"embedding": "' + b"[" * 99 + b'\\"[\\\\"}', "invalid_value"),
    "H8 wide": (b'{"embedding": [' + b",".join([b"[]"] * 9_999) + b"]}", "invalid_value"),
    "H9 not UTF-8 in a key": (b'{"embedding": [1], "\xff": 1}', "bad_encoding"),
    "H9 not UTF-8 in a value": (b'{"embedding": "\xff"}', "bad_encoding"),
    "H9 not UTF-8 at the top": (b"\xff\xfe\xfd", "bad_encoding"),
    "H9 BOM": (b'\xef\xbb\xbf{"embedding": [1]}', "bad_encoding"),
    "H9 UTF-16": ('{"embedding": [1]}'.encode("utf-16"), "bad_encoding"),
    "H9 UTF-16 without BOM": ('{"embedding": [1]}'.encode("utf-16-be"), "bad_encoding"),
    "H9 UTF-32": ('{"embedding": [1]}'.encode("utf-32-le"), "bad_encoding"),
    "H10 unknown field": (b'{"embedding": [1], "top": 1}', "unknown_field"),
    "H10 unknown before a wrong type": (b'{"K": 1, "embedding": "x"}', "unknown_field"),
    "H10 unknown behind a wrong type": (b'{"embedding": "x", "K": 1}', "unknown_field"),
}


@pytest.mark.parametrize(("body", "code"), BAD.values(), ids=BAD.keys())
def test_a_bad_body_gets_the_code_that_helps_its_sender(body: bytes, code: str) -> None:
    """Each kind of bad body has its own stable code."""
    assert code == code_of(body)


@pytest.mark.parametrize(
    ("body", "facts"),
    [
        (b'{"embedding": [NaN]}', {"position": 15}),
        (b'{"embedding": [1', {"position": 16}),
        (b"", {"position": 0}),
        (b'{"embedding": [1], "\xff": 1}', {"position": 20}),
        (b'{"embedding": [1, "x"]}', {"path": "$.embedding[1]"}),
        (b'{"embedding": [1e400]}', {"path": "$.embedding[0]"}),
        (b'{"k": 1}', {"path": "$"}),
        (b'{"embedding": [1], "k": []}', {"path": "$.k"}),
        (b'{"embedding": [1], "top": 1}', {"field": "top", "known": [*CosQuery.__struct_fields__]}),
        (nested(100), {"limit": MAX_DEPTH}),
    ],
)
def test_a_refusal_says_where(body: bytes, facts: dict[str, Any]) -> None:
    """The facts point at the byte, the path or the field."""
    assert facts == refusal_of(body).facts


def test_an_unknown_field_is_repeated_escaped_and_capped() -> None:
    """What a client sent cannot break a line of the log or fill it."""
    field = "a\n\u2028\x1b" + "x" * 5_000
    refusal = refusal_of(json.dumps({"embedding": [1], field: 1}).encode())

    assert refusal.facts["field"].startswith("a\\n\\u2028\\x1bxxx")
    assert len(refusal.detail) < 300
    assert refusal.detail.isprintable()


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_bytes_do_anything_but_decode_or_be_refused(body: bytes) -> None:
    """Whatever arrives is a query or a RequestError."""
    assert code_of(body) in {
        "ok", "bad_json", "json_too_deep", "bad_encoding", "unknown_field", "bad_k", "invalid_value"
    }  # fmt: skip


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["embedding", "k", "x"]) | st.text(), inner)
    ),
)


@given(st.dictionaries(st.sampled_from(["embedding", "k"]), _JSON) | _JSON)
def test_valid_json_is_judged_by_its_values(document: Any) -> None:
    """JSON that the standard library writes is refused only for what is in it."""
    text = json.dumps(document)
    expected = {"ok", "unknown_field", "bad_k", "invalid_value"}
    if any(not_json in text for not_json in ("NaN", "Infinity", "\\ud", "e+")):
        expected.add("bad_json")

    assert code_of(text.encode()) in expected


_HUGE = "an integer of more than 64 bits"


@pytest.mark.parametrize("k", [1, 7, 1000])
def test_k_within_its_bounds_is_taken(k: int) -> None:
    """1 and max_k are included."""
    assert k == check_k(k, max_k=1000)


@pytest.mark.parametrize(
    ("k", "got"),
    [(0, 0), (-1, -1), (1001, 1001), (10**20, _HUGE), (-(10**4000), _HUGE)],
    ids=["0", "-1", "max_k + 1", "10^20", "-10^4000"],
)
def test_k_outside_its_bounds_is_refused(k: int, got: int | str) -> None:
    """H5: the refusal names the bounds, and never prints thousands of digits."""
    with pytest.raises(BadK) as refused:
        check_k(k, max_k=1000)

    assert refused.value.facts == {"got": got, "max_k": 1000}
    assert len(refused.value.detail) < 100


@pytest.mark.parametrize("name", ["a", "0", "items", "a-b", "a" * 63])
def test_a_name_that_could_be_an_index_passes(name: str) -> None:
    """DNS labels are names."""
    assert name == checked_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "", "-a", "a-", "A", "a_b", "a.b", "..", "../items", "items\n", "items\x00", "a" * 64, "a" * 5_000,
        "\N{CYRILLIC SMALL LETTER IE}", "\ufffd", "items\r\nx: y", "items ", "_unknown",
    ],
)  # fmt: skip
def test_a_name_that_cannot_be_an_index_reaches_no_lookup(name: str) -> None:
    """H6: refused by its form, and repeated only escaped and capped."""
    with pytest.raises(UnknownIndex) as refused:
        checked_name(name)

    assert refused.value.detail.isprintable()
    assert refused.value.detail.isascii()
    assert len(refused.value.detail) < 700


def test_an_answer_is_pairs_of_id_and_score() -> None:
    """Ids are numbers or strings; scores keep every digit of their float32."""
    score = 0.8999999761581421
    answer = Answer(ids=["a", "b"], scores=[score, -1.0], queue_seconds=0.0, engine_seconds=0.0, rows=1)
    result = SearchResult(version="v1", outcomes=[answer])

    assert {"result": [["a", score], ["b", -1.0]], "version": "v1"} == json.loads(encode_result(result))


def test_several_answers_stand_in_the_order_of_their_queries() -> None:
    """A refused one is null, and an error names its row; facts cannot take the place of its members."""
    answer = Answer(ids=[3], scores=[0.5], queue_seconds=0.0, engine_seconds=0.0, rows=1)
    refusal = UnknownIndex("no such thing", code="x", more=1)
    result = SearchResult(version="v1", outcomes=[answer, refusal], many=True)

    assert {
        "results": [[[3, 0.5]], None],
        "version": "v1",
        "errors": [{"row": 1, "code": "unknown_index", "detail": "no such thing", "more": 1}],
    } == json.loads(encode_result(result))


def test_facts_cannot_replace_the_members_of_a_problem() -> None:
    """RFC 9457: code and status are ours, whatever a fact is called."""
    reply = problem_reply(UnknownIndex("no such index", status=200, code="x", more=1), request_id="r")
    body = json.loads(reply.body)

    assert (404, "unknown_index", 1) == (body["status"], body["code"], body["more"])


@given(st.text(max_size=500))
def test_what_is_printable_is_one_short_ascii_line(text: str) -> None:
    """No control character, no line break, no more than a line."""
    shown = printable(text)

    assert shown.isascii()
    assert shown == "" or shown.isprintable()
    assert len(shown) <= 80 * 10 + 3


def test_a_query_without_k_leaves_it_to_the_index() -> None:
    """Absent is not null."""
    assert decode_query(b'{"embedding": [1]}').k is UNSET
