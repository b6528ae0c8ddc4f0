"""A body read into arrays means what the typed decoder says it means; what else there is, is left to it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import UNSET, structs

from kosine.errors import RequestError
from kosine.http.bodies.json_arrays import LARGEST, JsonArrays
from kosine.http.wire import MAX_IDS, decode_query

MANY = ",".join(["1"] * (MAX_IDS + 1)).encode()


def plain(value: Any) -> Any:
    """Arrays as lists."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [plain(each) for each in value] if isinstance(value, list) else value


def read(body: bytes) -> dict[str, Any] | None:
    fields = JsonArrays(max_ids=MAX_IDS).read(body)
    return None if fields is None else {name: plain(value) for name, value in fields.items()}


def typed(body: bytes) -> dict[str, Any]:
    """What the typed decoder finds."""
    sent = structs.asdict(decode_query(body))
    return {name: plain(value) for name, value in sent.items() if value is not UNSET}


@pytest.mark.parametrize(
    "body",
    [
        b'{"embedding": [1.5, -2e3, 3], "k": 3}',
        b'{"embedding": []}',
        b'{"k":1 ,\t"embedding":[0] }\r\n',
        b'{"embedd\\u0069ng": [1]}',
        b'{"embeddings": [[1], [2, 3], []], "k": 2}',
        b'{"embedding": [18446744073709551615, 5e-324, -0.0]}',
        b'{"embedding": [1], "exclude": [1, -2, 9223372036854775807], "min_score": 1}',
        b'{"embedding": [1], "exclude": ["a", "\\u00e4"], "include": [], "min_score": 0.5}',
        b'{"embedding": [1], "mask": "in_stock", "not_mask": "sold", "k": 0}',
        b'{"embedding": [1], "k": 9223372036854775808}',
    ],
)
def test_a_usual_body_is_read_as_the_typed_decoder_reads_it(body: bytes) -> None:
    """Numbers, texts and their order are the same."""
    assert typed(body) == read(body)


def test_what_was_read_stays_when_another_body_is_read() -> None:
    """The parser's memory is used again; rows to leave out wait in the queue as they were read."""
    arrays = JsonArrays(max_ids=MAX_IDS)
    first = arrays.read(b'{"embedding": [1, 2], "exclude": [3, 4]}')
    second = arrays.read(b'{"embedding": [5, 6], "exclude": [7, 8]}')
    assert [([1, 2], [3, 4]), ([5, 6], [7, 8])] == [
        (each["embedding"].tolist(), each["exclude"].tolist()) for each in (first, second) if each is not None
    ]


LEFT = {
    "nothing": b"",
    "space before": b' {"embedding": [1]}',
    "byte order mark": b'\xef\xbb\xbf{"embedding": [1]}',
    "no JSON": b'{"embedding": [1,]}',
    "cut": b'{"embedding": [1',
    "behind": b'{"embedding": [1]} {}',
    "no UTF-8": b'{"embedding": [1], "mask": "\xff"}',
    "half a pair": b'{"embedding": [1], "mask": "\\ud800"}',
    "infinite": b'{"embedding": [1e400]}',
    "no number": b'{"embedding": [1, true]}',
    "null": b'{"embedding": null}',
    "base64": b'{"embedding": "AACAPw=="}',
    "nested": b'{"embedding": [[1, 2]]}',
    "nested empty": b'{"embedding": [1, []]}',
    "nested twice": b'{"embeddings": [[[1]], [2]]}',
    "rows among numbers": b'{"embeddings": [[1], 2]}',
    "ids of both kinds": b'{"embedding": [1], "exclude": ["a", 1]}',
    "ids of both kinds, the other way": b'{"embedding": [1], "exclude": [1, "a"]}',
    "an id that is a bool": b'{"embedding": [1], "exclude": [true]}',
    "an id with a point": b'{"embedding": [1], "exclude": [1.0]}',
    "an id of 65 bits": b'{"embedding": [1], "exclude": [9223372036854775808]}',
    "nested ids": b'{"embedding": [1], "exclude": [[1]]}',
    "ids by themselves": b'{"embedding": [1], "exclude": 1}',
    "too many ids": b'{"embedding": [1], "exclude": [' + MANY + b"]}",
    "k is a bool": b'{"embedding": [1], "k": true}',
    "k has a point": b'{"embedding": [1], "k": 1.0}',
    "null score": b'{"embedding": [1], "min_score": null}',
    "twice": b'{"embedding": [1], "embedding": [2]}',
    "k twice": b'{"embedding": [1], "k": 1, "k": 2}',
    "both": b'{"embedding": [1], "embeddings": [[1]]}',
    "neither": b'{"k": 1}',
    "an item": b'{"id": 1}',
    "a page": b'{"embedding": [1], "after": null}',
    "unknown": b'{"embedding": [1], "other": 1}',
    "a list": b"[1]",
    "large": b'{"embedding": [' + b"1," * (LARGEST // 2) + b"1]}",
}


@pytest.mark.parametrize("body", LEFT.values(), ids=LEFT.keys())
def test_what_is_not_plainly_usual_is_left_to_the_typed_decoder(body: bytes) -> None:
    """It has the rules, and the words for who broke them."""
    assert read(body) is None


def test_the_next_body_is_read_whatever_came_before() -> None:
    """One parser reads them all, and nothing of a bad one stays behind."""
    arrays = JsonArrays(max_ids=MAX_IDS)
    for body in LEFT.values():
        arrays.read(body)
        assert [0.5] == plain((arrays.read(b'{"embedding": [0.5]}') or {})["embedding"])


def test_what_was_read_stays_when_the_next_body_is_read() -> None:
    """Arrays are copies: a query waits in a queue while others are read."""
    arrays = JsonArrays(max_ids=MAX_IDS)
    first = arrays.read(b'{"embedding": [1, 2], "exclude": [7]}')
    arrays.read(b'{"embedding": [3, 4], "exclude": [8]}')
    assert first is not None
    assert ([1.0, 2.0], [7]) == (plain(first["embedding"]), plain(first["exclude"]))


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=6,
)
IDS = st.lists(st.integers(-(2**64), 2**64), max_size=4) | st.lists(st.text(max_size=3), max_size=4) | VALUES
FIELDS = {
    "embedding": st.lists(NUMBERS, max_size=5) | VALUES,
    "embeddings": st.lists(st.lists(NUMBERS, max_size=3), max_size=3) | VALUES,
    "k": st.integers(-5, 2**65) | VALUES,
    "exclude": IDS,
    "include": IDS,
    "mask": st.text(max_size=4) | VALUES,
    "not_mask": st.text(max_size=4) | VALUES,
    "min_score": NUMBERS | VALUES,
    "with_embeddings": VALUES,
    "other": VALUES,
}
BODIES = st.fixed_dictionaries({}, optional=FIELDS).map(msgspec.json.encode) | st.binary(max_size=40)


@given(BODIES)
@example(b'{"embedding":[1],"min_score":123456789012345678901234567890}')
def test_whatever_is_read_is_what_the_typed_decoder_reads(body: bytes) -> None:
    """No body means two things, and none is taken here that is refused there."""
    fields = read(body)
    if fields is None:
        return
    try:
        expected = typed(body)
    except RequestError as error:
        raise AssertionError(f"{body!r} is {error.code} there, and here {fields}") from None
    assert expected == fields
