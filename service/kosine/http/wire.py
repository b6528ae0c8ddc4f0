"""Queries and answers as JSON, and what exactly is wrong with a body that does not decode.

A good body is decoded in one typed pass. Only a bad one is looked at again, with time to find the code that
helps its sender: not UTF-8, nested too deeply, not JSON, an unknown field, a bad k, or a value and its path.
Duplicate keys: the last one counts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType

from kosine.errors import BadEncoding, BadJson, BadK, InvalidValue, JsonTooDeep, UnknownField, UnknownIndex
from kosine.http.bodies.floats import from_raw
from kosine.http.problems import printable
from kosine.serving.request import SearchRequest
from kosine.settings import INDEX_NAME_PATTERN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kosine.errors import RequestError
    from kosine.serving.batch import Answer
    from kosine.serving.request import SearchResult

__all__ = (
    "MAX_DEPTH",
    "CosAnswer",
    "CosAnswers",
    "CosQuery",
    "RowError",
    "answer_of",
    "checked_name",
    "decode_query",
    "decode_request",
    "encode_result",
)

MAX_DEPTH = 32
"""A query nests three levels; whatever nests this many is an attack or a mistake."""

_NAME = re.compile(INDEX_NAME_PATTERN)
_POSITION = re.compile(r" \(byte (\d+)\)$")
_PATH = re.compile(r"^(?P<reason>.*?)(?: - at `(?P<path>.*)`)?$", re.DOTALL)
_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class CosQuery(msgspec.Struct, forbid_unknown_fields=True):
    """One query, or several.

    A field that is absent costs nothing to decode: measured against a struct of `embedding` and `k` alone.
    """

    embedding: list[float] | bytes | UnsetType = UNSET
    k: int | UnsetType = UNSET
    embeddings: list[list[float] | bytes] | UnsetType = UNSET


class CosAnswer(msgspec.Struct):
    """The best items, best first, and the version that found them."""

    result: list[tuple[int | str, float]]
    version: str


class RowError(msgspec.Struct):
    """Why one query of several was refused; the facts of its code stand beside it."""

    row: int
    code: str
    detail: str


class CosAnswers(msgspec.Struct, omit_defaults=True):
    """A result for each query, in their order; null for one that was refused."""

    results: list[list[tuple[int | str, float]] | None]
    version: str
    errors: list[RowError] | UnsetType = UNSET


_DECODER = msgspec.json.Decoder(CosQuery)
_ENCODER = msgspec.json.Encoder()


def encode_result(result: SearchResult) -> bytes:
    """`answer_of` as JSON."""
    return _ENCODER.encode(answer_of(result))


def answer_of(result: SearchResult) -> dict[str, Any]:
    """`{"result": [[id, score], ...], "version": "..."}`, or `results`, and `errors` where there are any."""
    if not result.many:
        return {"result": _pairs(result.outcomes[0]), "version": result.version}
    body: dict[str, Any] = {
        "results": [_pairs(outcome) for outcome in result.outcomes],
        "version": result.version,
    }
    if errors := result.errors:
        body["errors"] = [
            {**error.facts, "row": row, "code": error.code, "detail": error.detail}
            for row, error in errors.items()
        ]
    return body


def _pairs(outcome: Answer | RequestError) -> list[tuple[int | str, float]] | None:
    if isinstance(outcome, Exception):
        return None
    return list(zip(outcome.ids, outcome.scores, strict=True))


def decode_request(body: bytes, _query_string: bytes = b"") -> SearchRequest:
    """What `body` asks for. Raises as `decode_query`, and InvalidValue unless it asks in one way."""
    query = decode_query(body)
    k = None if query.k is UNSET else query.k
    embedding, embeddings = query.embedding, query.embeddings
    if embedding is not UNSET and embeddings is UNSET:
        return SearchRequest(vectors=(_vector(embedding, "$.embedding"),), k=k)
    if embeddings is not UNSET and embedding is UNSET:
        vectors = [_vector(each, f"$.embeddings[{row}]") for row, each in enumerate(embeddings)]
        return SearchRequest(vectors=vectors, many=True, k=k)
    raise InvalidValue("expected one of `embedding` and `embeddings`", path="$")


def _vector(sent: list[float] | bytes, path: str) -> list[float] | NDArray[np.float32]:
    """Bytes were base64; the decoder has read it."""
    return from_raw(sent, path=path) if isinstance(sent, bytes) else sent


def decode_query(body: bytes) -> CosQuery:
    """The query in `body`. Raises BadEncoding, JsonTooDeep, BadJson, UnknownField, BadK or InvalidValue."""
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _diagnose(body, error) from None


def checked_name(name: str) -> str:
    """`name` itself where it could be an index at all; nothing else reaches a lookup or a label."""
    if not _NAME.fullmatch(name):
        raise UnknownIndex(f"no index {printable(name)} is configured; GET /indexes lists those that are")
    return name


def _diagnose(body: bytes, error: Exception) -> RequestError:
    _check_encoding(body)
    syntax = _syntax_error(body)
    if syntax is not None:
        return syntax
    if _deeper_than(MAX_DEPTH, body):
        return _too_deep()
    return _value_error(body, str(error))


def _check_encoding(body: bytes) -> None:
    if body.startswith(b"\xef\xbb\xbf"):
        raise BadEncoding("expected UTF-8 without a byte order mark, got one", position=0)
    if b"\x00" in body[:4]:
        raise BadEncoding("expected UTF-8, got what looks like UTF-16 or UTF-32", position=0)
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadEncoding(
            f"expected UTF-8, got another byte at {error.start}", position=error.start
        ) from None


def _syntax_error(body: bytes) -> RequestError | None:
    """Walk the whole body without building anything; the typed pass stops at the first wrong type."""
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except RecursionError:
        return _too_deep()
    except msgspec.DecodeError as error:
        return _bad_json(body, str(error))
    return None


def _bad_json(body: bytes, reason: str) -> BadJson:
    found = _POSITION.search(reason)
    if found is None:
        return BadJson(
            f"expected a JSON object, but the body ends after {len(body)} bytes", position=len(body)
        )
    what = reason[: found.start()].removeprefix("JSON is malformed: ")
    position = int(found[1])
    return BadJson(f"expected a JSON object, got {what} at byte {position}", position=position)


def _too_deep() -> JsonTooDeep:
    return JsonTooDeep(f"expected at most {MAX_DEPTH} levels of JSON; a query needs 3", limit=MAX_DEPTH)


def _deeper_than(limit: int, body: bytes) -> bool:
    """Whether valid JSON nests deeper, without recursion: each pass takes the innermost brackets away."""
    outside_strings = b"".join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    brackets = outside_strings.translate(_TO_BRACKETS, _ALL_BUT_BRACKETS)
    for _ in range(limit):
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _value_error(body: bytes, reason: str) -> RequestError:
    """What is wrong with valid, shallow JSON."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return InvalidValue(f"expected a JSON object with `embedding`, not this: {reason}", path="$")
    known = CosQuery.__struct_fields__
    for field in fields:
        if field not in known:
            shown = printable(field)
            return UnknownField(
                f"unknown field {shown}; known are {', '.join(known)}", field=shown, known=list(known)
            )
    return _field_error(reason)


def _field_error(reason: str) -> RequestError:
    found = _PATH.match(reason)
    reason, path = (found["reason"], found["path"] or "$") if found else (reason, "$")
    if path == "$.k":
        return BadK(f"expected k to be a whole number of at most 64 bits: {reason}", path=path)
    if reason == "Number out of range":
        return BadJson(f"a number at {path} does not fit a double; JSON has no infinity", path=path)
    return InvalidValue(f"{reason.replace('bytes | array', 'array | base64')} at {path}", path=path)
