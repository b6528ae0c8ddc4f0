"""Queries and answers as JSON, and what exactly is wrong with a body that does not decode.

The usual body is read into arrays (`kosine.http.bodies.json_arrays`), any other good one in one typed pass.
Only a bad one is looked at again, with time to find the code that helps its sender: not UTF-8, nested too
deeply, not JSON, an unknown field, a bad k, or a value and its path. Duplicate keys: the last one counts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from kosine.errors import BadEncoding, BadJson, BadK, InvalidValue, JsonTooDeep, UnknownField, UnknownIndex
from kosine.http.bodies.floats import from_raw
from kosine.http.bodies.json_arrays import JsonArrays
from kosine.http.problems import printable
from kosine.serving.request import SearchOptions, SearchRequest
from kosine.settings import INDEX_NAME_PATTERN

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kosine.errors import RequestError
    from kosine.serving.batch import Answer
    from kosine.serving.request import SearchResult

__all__ = (
    "MAX_DEPTH",
    "MAX_IDS",
    "CosAnswer",
    "CosAnswers",
    "CosQuery",
    "RowError",
    "answer_of",
    "checked_name",
    "decode_as",
    "decode_query",
    "decode_request",
    "encode_result",
    "vector_of",
)

MAX_DEPTH = 32
"""A query nests three levels; whatever nests this many is an attack or a mistake."""

MAX_IDS = 10_000
"""Excluded or included in one request."""

_NAME = re.compile(INDEX_NAME_PATTERN)
_POSITION = re.compile(r" \(byte (\d+)\)$")
_PATH = re.compile(r"^(?P<reason>.*?)(?: - at `(?P<path>.*)`)?$", re.DOTALL)
_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


_Query = TypeVar("_Query", bound=msgspec.Struct)
_Ids = Annotated[list[int | str], msgspec.Meta(max_length=MAX_IDS)]
_SUBJECTS = ("embedding", "embeddings", "id", "ids")
_WISHES = ("include_self", "exclude", "include", "mask", "not_mask", "min_score", "with_embeddings", "after")


class CosQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Everything that a query may say."""

    embedding: list[float] | bytes | UnsetType = UNSET
    k: int | UnsetType = UNSET
    embeddings: list[list[float] | bytes] | UnsetType = UNSET
    id: int | str | UnsetType = UNSET
    ids: list[int | str] | UnsetType = UNSET
    include_self: bool | UnsetType = UNSET
    exclude: _Ids | UnsetType = UNSET
    include: _Ids | UnsetType = UNSET
    mask: str | UnsetType = UNSET
    not_mask: str | UnsetType = UNSET
    min_score: float | UnsetType = UNSET
    with_embeddings: bool | UnsetType = UNSET
    after: str | UnsetType | None = UNSET


class CosAnswer(msgspec.Struct):
    """The best items, best first, and the version that found them."""

    result: list[tuple[int | str, float]]
    version: str
    embeddings: list[list[float]] | UnsetType = UNSET
    """Of the items, where `with_embeddings` asked for them."""
    next: str | UnsetType | None = UNSET
    """Where `after` asked for a page: the cursor of the one behind it; null where nothing is behind it."""


class RowError(msgspec.Struct):
    """Why one query of several was refused; the facts of its code stand beside it."""

    row: int
    code: str
    detail: str


class CosAnswers(msgspec.Struct, omit_defaults=True):
    """A result for each query, in their order; null for one that was refused."""

    results: list[list[tuple[int | str, float]] | None]
    version: str
    embeddings: list[list[list[float]] | None] | UnsetType = UNSET
    errors: list[RowError] | UnsetType = UNSET


_QUERY = msgspec.json.Decoder(CosQuery)
_ARRAYS = JsonArrays(max_ids=MAX_IDS)
_ENCODER = msgspec.json.Encoder()


def encode_result(result: SearchResult) -> bytes:
    """`answer_of` as JSON."""
    return _ENCODER.encode(answer_of(result))


def answer_of(result: SearchResult) -> dict[str, Any]:
    """`{"result": [[id, score], ...], "version": "..."}`, or `results`, and `errors` where there are any."""
    if not result.many:
        return _answer_of_one(result)
    body: dict[str, Any] = {
        "results": [_pairs(outcome) for outcome in result.outcomes],
        "version": result.version,
    }
    if any(_embeddings(outcome) is not None for outcome in result.outcomes):
        body["embeddings"] = [_embeddings(outcome) for outcome in result.outcomes]
    if errors := result.errors:
        body["errors"] = [
            {**error.facts, "row": row, "code": error.code, "detail": error.detail}
            for row, error in errors.items()
        ]
    return body


def _answer_of_one(result: SearchResult) -> dict[str, Any]:
    [outcome] = result.outcomes
    body: dict[str, Any] = {"result": _pairs(outcome), "version": result.version}
    if result.next is not None:
        body["next"] = result.next or None
    if (embeddings := _embeddings(outcome)) is not None:
        body["embeddings"] = embeddings
    return body


def _embeddings(outcome: Answer | RequestError) -> list[list[float]] | None:
    if isinstance(outcome, Exception) or outcome.embeddings is None:
        return None
    listed: list[list[float]] = outcome.embeddings.tolist()
    return listed


def _pairs(outcome: Answer | RequestError) -> list[tuple[int | str, float]] | None:
    if isinstance(outcome, Exception):
        return None
    return list(zip(outcome.ids, outcome.scores, strict=True))


def decode_request(body: bytes, _query_string: bytes = b"") -> SearchRequest:
    """What `body` asks for. Raises as `decode_query`, and InvalidValue unless it asks in one way."""
    fields = _ARRAYS.read(body)
    return _request_of(decode_query(body)) if fields is None else _request_of_arrays(fields)


def _request_of_arrays(fields: dict[str, Any]) -> SearchRequest:
    k, vector, vectors = fields.pop("k", None), fields.pop("embedding", None), fields.pop("embeddings", None)
    options = SearchOptions(**fields) if fields else None
    if vector is not None:
        return SearchRequest(vectors=(vector,), k=k, options=options)
    return SearchRequest(vectors=vectors, many=True, k=k, options=options)


def _request_of(query: CosQuery) -> SearchRequest:
    k = None if query.k is UNSET else query.k
    if (query.embedding, query.embeddings, query.id, query.ids).count(UNSET) != len(_SUBJECTS) - 1:
        raise _not_one_subject(query)
    options = _options(query)
    if query.id is not UNSET:
        return SearchRequest(ids=(query.id,), k=k, options=options)
    if query.ids is not UNSET:
        return SearchRequest(ids=query.ids, many=True, k=k, options=options)
    if query.embeddings is not UNSET:
        vectors = [vector_of(each, f"$.embeddings[{row}]") for row, each in enumerate(query.embeddings)]
        return SearchRequest(vectors=vectors, many=True, k=k, options=options)
    return SearchRequest(vectors=_only(query.embedding), k=k, options=options)


def _not_one_subject(query: CosQuery) -> InvalidValue:
    asked = [name for name in _SUBJECTS if getattr(query, name) is not UNSET]
    got = " and ".join(f"`{name}`" for name in asked) or "none of them"
    return InvalidValue(
        f"expected one of {', '.join(f'`{name}`' for name in _SUBJECTS)}, got {got}", path="$"
    )


def _only(embedding: list[float] | bytes | UnsetType) -> tuple[list[float] | NDArray[np.float32], ...]:
    return () if embedding is UNSET else (vector_of(embedding, "$.embedding"),)


def _options(query: CosQuery) -> SearchOptions | None:
    """What was sent of them; None where nothing was."""
    given = {name: value for name in _WISHES if (value := getattr(query, name)) is not UNSET}
    if given.get("include_self") is not None and query.id is UNSET and query.ids is UNSET:
        raise InvalidValue("expected `include_self` only beside `id` or `ids`", path="$.include_self")
    if "after" in given:
        given["after"] = given["after"] or ""
    return SearchOptions(**given) if given else None


def vector_of(sent: list[float] | bytes, path: str) -> list[float] | NDArray[np.float32]:
    """Bytes were base64; the decoder has read it."""
    return from_raw(sent, path=path) if isinstance(sent, bytes) else sent


def decode_query(body: bytes) -> CosQuery:
    """The query in `body`. Raises BadEncoding, JsonTooDeep, BadJson, UnknownField, BadK or InvalidValue."""
    return _decoded(_QUERY, body)


def decode_as(kind: type[_Query], body: bytes) -> _Query:
    """`body` as another struct; raises the same."""
    return _decoded(msgspec.json.Decoder(kind), body)


def _decoded(decoder: msgspec.json.Decoder[_Query], body: bytes) -> _Query:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _diagnose(body, error, decoder.type.__struct_fields__) from None


def checked_name(name: str) -> str:
    """`name` itself where it could be an index at all; nothing else reaches a lookup or a label."""
    if not _NAME.fullmatch(name):
        raise UnknownIndex(f"no index {printable(name)} is configured; GET /indexes lists those that are")
    return name


def _diagnose(body: bytes, error: Exception, known: tuple[str, ...]) -> RequestError:
    _check_encoding(body)
    syntax = _syntax_error(body)
    if syntax is not None:
        return syntax
    if _deeper_than(MAX_DEPTH, body):
        return _too_deep()
    return _value_error(body, str(error), known)


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


def _value_error(body: bytes, reason: str, known: tuple[str, ...]) -> RequestError:
    """What is wrong with valid, shallow JSON."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return InvalidValue(f"expected a JSON object with {', '.join(known)}, not this: {reason}", path="$")
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
