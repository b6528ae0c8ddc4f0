"""Every format of a body says the same, in and out; what it cannot mean is refused."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from kosine.errors import NotAcceptable, RequestError, UnsupportedMediaType, ZeroVector
from kosine.http.bodies.floats import from_npy, from_raw
from kosine.http.bodies.formats import DECODERS, ENCODERS, decoder_of, encoder_of
from kosine.http.wire import MAX_IDS
from kosine.serving.batch import Answer
from kosine.serving.request import SearchOptions, SearchResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

RAW, NPY, JSON = "application/octet-stream", "application/x-npy", "application/json"
ARROW = "application/vnd.apache.arrow.stream"
NUMBERS = nps.arrays(np.float32, nps.array_shapes(max_dims=1, max_side=8), elements=st.floats(width=32))

ONCE = [
    ("k", "1"),
    ("mask", "in_stock"),
    ("not_mask", "in_stock"),
    ("min_score", "0"),
    ("with_embeddings", "true"),
    ("after", ""),
]
NO_NUMBERS = [b"", b"NaN", b"Infinity", b"1e999", b"1_0", b"0x1", b"%D9%A1", b"%221%22", b"null", b"9" * 400]
NO_FLAGS = [b"", b"1", b"True", b"yes", b"null"]


def npy(array: NDArray[Any]) -> bytes:
    np.save(file := io.BytesIO(), array)
    return file.getvalue()


def code_of(decode: Callable[[], Any]) -> str:
    try:
        decode()
    except RequestError as error:
        return error.code
    return "ok"


@given(NUMBERS)
def test_floats_arrive_as_they_were_sent(numbers: NDArray[np.float32]) -> None:
    """To the last bit, by any of the three ways, NaN and infinity included: others refuse those."""
    expected = numbers.tobytes()

    assert expected == from_raw(numbers.astype("<f4").tobytes()).tobytes()
    assert expected == from_npy(npy(numbers)).tobytes()
    text = json.dumps({"embedding": base64.b64encode(numbers.tobytes()).decode()})
    (row,) = DECODERS[JSON](text.encode(), b"").vectors
    assert expected == np.asarray(row).tobytes()


@pytest.mark.parametrize("dtype", ["<f2", ">f2", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npy_of_any_float_becomes_float32(dtype: str, order: Any) -> None:
    """Rows stay rows."""
    rows = np.arange(6, dtype=dtype).reshape(2, 3)
    found = from_npy(npy(np.asarray(rows, order=order)))

    assert (np.dtype(np.float32), True) == (found.dtype, found.flags.c_contiguous)
    assert rows.tolist() == found.tolist()


def test_a_body_is_looked_at_and_not_copied() -> None:
    """Decoding 256 rows takes no memory beside the body."""
    rows = np.ones((256, 512), np.float32)

    assert not from_raw(rows.tobytes()).flags.owndata
    assert not from_npy(npy(rows)).flags.owndata


@pytest.mark.parametrize(
    ("content_type", "body", "query_string", "code"),
    [
        (RAW, b"", b"", "ok"),
        (RAW, b"abcd", b"k=3", "ok"),
        (RAW, b"abc", b"", "invalid_value"),
        (RAW, b"abcd", b"k=0", "ok"),
        (RAW, b"abcd", b"k=", "bad_k"),
        (RAW, b"abcd", b"k=-1", "bad_k"),
        (RAW, b"abcd", b"k=1.5", "bad_k"),
        (RAW, b"abcd", b"k=%D9%A1", "bad_k"),
        (RAW, b"abcd", b"k=" + b"9" * 5000, "bad_k"),
        (RAW, b"abcd", b"top=1", "unknown_field"),
        (RAW, b"abcd", b"k=1\xff", "invalid_value"),
        (NPY, npy(np.ones(3)), b"k=3", "ok"),
        (NPY, npy(np.ones((2, 3))), b"", "ok"),
        (NPY, npy(np.ones((0, 3))), b"", "ok"),
        (NPY, npy(np.full(3, 1e39)), b"", "ok"),
        (NPY, b"", b"", "invalid_value"),
        (NPY, npy(np.array(1.0)), b"", "invalid_value"),
        (NPY, npy(np.ones((1, 2, 3))), b"", "invalid_value"),
        (NPY, npy(np.array([1, 2])), b"", "invalid_value"),
        (NPY, npy(np.ones(3))[:-1], b"", "invalid_value"),
        (NPY, npy(np.ones(3)) + b"x", b"", "invalid_value"),
        (
            NPY,
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
            b"",
            "invalid_value",
        ),
        (NPY, npy(np.ones(3)), b"kk=1", "unknown_field"),
        (JSON, b'{"embedding": "AACAPwAAAEA="}', b"", "ok"),
        (JSON, b'{"embedding": ""}', b"", "ok"),
        (JSON, b'{"embedding": "AACAPw"}', b"", "invalid_value"),
        (JSON, b'{"embedding": "AACA Pw=="}', b"", "invalid_value"),
        (JSON, b'{"embedding": "AACAPwA="}', b"", "invalid_value"),
        (JSON, b'{"embedding": "\xc3\xa9"}', b"", "invalid_value"),
        (JSON, b'{"embeddings": ["AACAPw==", [1]]}', b"", "ok"),
        (JSON, b'{"embeddings": ["AACAPw==", "?"]}', b"", "invalid_value"),
        (JSON, b'{"embeddings": "AACAPw=="}', b"", "invalid_value"),
    ],
)
def test_what_a_body_may_be(content_type: str, body: bytes, query_string: bytes, code: str) -> None:
    """Of each format, with the refusal of everything else."""
    assert code == code_of(lambda: DECODERS[content_type](body, query_string))


@pytest.mark.parametrize(
    ("query_string", "expected"),
    [
        (b"", None),
        (b"k=3", None),
        (b"min_score=-0.5", SearchOptions(min_score=-0.5)),
        (b"min_score=1e-3&with_embeddings=true", SearchOptions(min_score=1e-3, with_embeddings=True)),
        (b"with_embeddings=false", SearchOptions()),
        (b"mask=in_stock&not_mask=seen", SearchOptions(mask="in_stock", not_mask="seen")),
        (b"after=", SearchOptions(after="")),
        (b"after=0JpsX4Rnbj8", SearchOptions(after="0JpsX4Rnbj8")),
        (b"exclude=7&exclude=a%2Cb&exclude=%C3%A9", SearchOptions(exclude=("7", "a,b", "\u00e9"))),
        (b"include=a+b&exclude=c&include=d", SearchOptions(include=("a b", "d"), exclude=("c",))),
        (b"include=", SearchOptions(include=())),
        (b"include=&include=a", SearchOptions(include=("a",))),
        (b"exclude=", SearchOptions()),
        (b"exclude=" + b"x" * 1000, SearchOptions(exclude=("x" * 1000,))),
        (b"&".join([b"exclude=1"] * MAX_IDS), SearchOptions(exclude=("1",) * MAX_IDS)),
    ],
)
def test_what_the_query_string_of_bytes_may_say(query_string: bytes, expected: SearchOptions | None) -> None:
    """Each parameter, ids as they are written; of vectors in either format."""
    for content_type, body in ((RAW, b"abcd"), (NPY, npy(np.ones(3)))):
        request = DECODERS[content_type](body, query_string)
        assert (expected, expected is not None) == (request.options, request.ids_as_text)


@pytest.mark.parametrize(
    ("query_string", "code", "path"),
    [
        *((f"{name}={value}&{name}={value}".encode(), "invalid_value", f"?{name}") for name, value in ONCE),
        *((b"min_score=" + text, "invalid_value", "?min_score") for text in NO_NUMBERS),
        *((b"with_embeddings=" + text, "invalid_value", "?with_embeddings") for text in NO_FLAGS),
        (b"&".join([b"exclude=1"] * (MAX_IDS + 1)), "invalid_value", "?exclude"),
        (b"include=1&" * (MAX_IDS + 1), "invalid_value", "?include"),
        (b"k=1&" * 3 * MAX_IDS, "invalid_value", "?"),
        (b"exclude=%FF", "invalid_value", "?"),
        (b"exclude=\xc3\xa9", "invalid_value", "?"),
        (b"include_self=true", "unknown_field", None),
        (b"Mask=in_stock", "unknown_field", None),
        (b"=1", "unknown_field", None),
    ],
)
def test_what_it_may_not_say_is_refused(query_string: bytes, code: str, path: str | None) -> None:
    """By the code that JSON gets, and with the parameter's name."""
    with pytest.raises(RequestError) as refused:
        DECODERS[RAW](b"abcd", query_string)

    assert (code, path) == (refused.value.code, refused.value.facts.get("path"))


@given(st.sampled_from([*DECODERS]), st.binary(max_size=200), st.binary(max_size=40))
def test_no_bytes_do_anything_but_decode_or_be_refused(
    content_type: str, body: bytes, query_string: bytes
) -> None:
    """Whatever arrives is a request or a RequestError."""
    assert code_of(lambda: DECODERS[content_type](body, query_string))


@given(
    st.sampled_from([1, 2, 3]), st.binary(max_size=200), st.integers(0, 20), st.binary(min_size=1, max_size=4)
)
def test_no_npy_that_was_tampered_with_does(version: int, tail: bytes, at: int, put: bytes) -> None:
    """The head is where a claim could cost memory."""
    content = bytearray(npy(np.ones(3, np.float32)) + tail)
    content[6] = version
    content[at : at + len(put)] = put

    assert code_of(lambda: from_npy(bytes(content))) in {"ok", "invalid_value"}


@pytest.mark.parametrize(
    ("sent", "refusal"),
    [
        (b"application/octet-stream", None),
        (b"Application/X-NPY", None),
        (b"application/vnd.api+json", None),
        (b"application/x-npz", UnsupportedMediaType),
        (b"text/csv", UnsupportedMediaType),
    ],
)
def test_a_body_is_read_by_its_content_type(sent: bytes, refusal: type[RequestError] | None) -> None:
    """What is none is refused, and those there are are named."""
    if refusal is None:
        assert decoder_of({b"content-type": sent}) in DECODERS.values()
    else:
        with pytest.raises(refusal, match="expected Content-Type: application/json or "):
            decoder_of({b"content-type": sent})


def test_an_answer_is_written_as_it_is_accepted() -> None:
    """JSON where anything goes; what cannot be written is refused before anything is computed."""
    assert ENCODERS[JSON] == encoder_of({}) == encoder_of({b"accept": b"*/*"})
    assert ENCODERS["application/x-npz"] == encoder_of({b"accept": b"application/x-npz"})
    with pytest.raises(NotAcceptable, match=r"answers are application/json, .*; got Accept: text/csv"):
        encoder_of({b"accept": b"text/csv"})


ONE = SearchResult(version="v1", outcomes=[Answer([7, 9], [0.5, -0.25], 0.0, 0.0, 1)])
TEXT = SearchResult(version="v1", outcomes=[Answer(["é", "long"], [0.5, -0.25], 0.0, 0.0, 1)])
SEVERAL = SearchResult(
    version="v1",
    outcomes=[
        Answer(["a", "bcd"], [0.5, 0.25], 0.0, 0.0, 1),
        ZeroVector("zeros", row=1),
        Answer(["e"], [1.0], 0.0, 0.0, 1),
    ],
    many=True,
)
RESULTS = pytest.mark.parametrize("result", [ONE, TEXT, SEVERAL], ids=["one", "text", "several"])


def encoded(result: SearchResult, media_type: str) -> bytes:
    content_type, body = ENCODERS[media_type](result)
    assert media_type == content_type.decode()
    return body


@RESULTS
@pytest.mark.parametrize("media_type", ["application/msgpack", "application/vnd.msgpack"])
def test_messagepack_says_what_json_says(result: SearchResult, media_type: str) -> None:
    """Field by field."""
    assert json.loads(encoded(result, JSON)) == msgspec.msgpack.decode(encoded(result, media_type))


def test_an_npz_of_one_query_has_its_ids_and_scores() -> None:
    """As `np.load` reads them, without pickle."""
    for result, kind in ((ONE, np.int64), (TEXT, np.str_)):
        with np.load(io.BytesIO(encoded(result, "application/x-npz")), allow_pickle=False) as found:
            assert {"ids", "scores", "version"} == set(found)
            assert result.outcomes[0].ids == found["ids"].tolist()  # type: ignore[union-attr]
            assert [0.5, -0.25] == found["scores"].tolist()
            assert (np.float32, "v1") == (found["scores"].dtype, str(found["version"]))
            assert np.issubdtype(found["ids"].dtype, kind)


def test_an_npz_of_several_queries_is_padded() -> None:
    """`counts` says how much is there, `codes` why nothing is."""
    with np.load(io.BytesIO(encoded(SEVERAL, "application/x-npz")), allow_pickle=False) as found:
        assert [["a", "bcd"], ["", ""], ["e", ""]] == found["ids"].tolist()
        assert [2, 0, 1] == found["counts"].tolist()
        assert ["", "zero_vector", ""] == found["codes"].tolist()
        assert np.array_equal(found["scores"], [[0.5, 0.25], [np.nan, np.nan], [1.0, np.nan]], equal_nan=True)


@RESULTS
def test_an_arrow_stream_has_a_row_for_each_query(result: SearchResult) -> None:
    """Lists as long as they are; the version in the metadata."""
    nanoarrow = pytest.importorskip("nanoarrow", reason="kosine[arrow] is not installed")
    stream = nanoarrow.ArrayStream.from_readable(encoded(result, ARROW))

    assert {b"version": b"v1"} == dict(stream.schema.metadata.items())
    assert [
        {"ids": each.ids, "scores": each.scores, "code": None}
        if isinstance(each, Answer)
        else {"ids": [], "scores": [], "code": each.code}
        for each in result.outcomes
    ] == stream.read_all().to_pylist()


def test_nothing_found_is_an_answer_too() -> None:
    """No item, in every format."""
    nothing = Answer([], [], 0.0, 0.0, 1)
    for result in (
        SearchResult(version="v1", outcomes=[nothing]),
        SearchResult(version="v1", outcomes=[nothing, nothing], many=True),
    ):
        for media_type in ENCODERS:
            assert encoded(result, media_type)
