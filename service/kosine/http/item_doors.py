"""Two more doors to the search: the vector of a stored item, and the scores of given items.

Both are searches like any other, in the same queue and the same engine calls; only what is read and written
differs. A door is made for each request, so that the answer can stand in the order of what was asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from kosine.errors import InternalError, InvalidValue, TooManyIds
from kosine.http.bodies.formats import Door, decoder_of
from kosine.http.wire import MAX_IDS, decode_as, vector_of
from kosine.serving.batch import Answer
from kosine.serving.request import SearchOptions, SearchRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kosine.http.bodies.formats import Decode
    from kosine.serving.request import SearchResult

__all__ = ("Item", "ItemScores", "ScoreQuery", "item_door", "score_door")

_JSON = b"application/json"


class Item(msgspec.Struct):
    """A stored vector; with metric cosine it has length 1, whatever the file held."""

    id: int | str
    embedding: list[float]
    version: str


class ScoreQuery(msgspec.Struct, forbid_unknown_fields=True):
    """A query, by vector or by item, and the items it is scored against."""

    ids: Annotated[list[int | str], msgspec.Meta(min_length=1)]
    embedding: list[float] | bytes | UnsetType = UNSET
    id: int | str | UnsetType = UNSET


class ItemScores(msgspec.Struct):
    """A score for each item, in their order; null for one that the index does not hold."""

    scores: list[float | None]
    version: str


def item_door(wanted: str) -> Door:
    """Reads no body; answers the item whose id is written `wanted` in the path."""
    request = SearchRequest(
        ids=(wanted,), ids_as_text=True, k=1, options=SearchOptions(itself=True, with_embeddings=True)
    )

    def encode(result: SearchResult) -> tuple[bytes, bytes]:
        found = _answer(result)
        if found.embeddings is None or not found.ids:
            raise InternalError("the item was found without its vector")
        item = Item(id=found.ids[0], embedding=found.embeddings[0].tolist(), version=result.version)
        return _JSON, msgspec.json.encode(item)

    return Door(decoder=lambda _: lambda _body, _query: request, encoder=lambda _: encode)


def score_door() -> Door:
    """Reads a `ScoreQuery`, answers `ItemScores`."""
    asked: list[int | str] = []

    def decode(body: bytes, _query_string: bytes) -> SearchRequest:
        query = decode_as(ScoreQuery, body)
        asked.extend(query.ids)
        return _score_request(query)

    def decoder(headers: Mapping[bytes, bytes]) -> Decode:
        decoder_of(headers)
        return decode

    def encode(result: SearchResult) -> tuple[bytes, bytes]:
        found = _answer(result)
        by_id: dict[Any, float] = dict(zip(found.ids, found.scores, strict=True))
        scores = ItemScores(scores=[by_id.get(each) for each in asked], version=result.version)
        return _JSON, msgspec.json.encode(scores)

    return Door(decoder=decoder, encoder=lambda _: encode)


def _score_request(query: ScoreQuery) -> SearchRequest:
    if len(query.ids) > MAX_IDS:
        raise TooManyIds(
            f"expected at most {MAX_IDS} ids, got {len(query.ids)}; score them in several requests",
            limit=MAX_IDS,
            got=len(query.ids),
        )
    options = SearchOptions(score=query.ids)
    if query.embedding is not UNSET and query.id is UNSET:
        return SearchRequest(vectors=(vector_of(query.embedding, "$.embedding"),), options=options)
    if query.id is not UNSET and query.embedding is UNSET:
        return SearchRequest(ids=(query.id,), options=options)
    raise InvalidValue("expected one of `embedding` and `id`", path="$")


def _answer(result: SearchResult) -> Answer:
    [outcome] = result.outcomes
    if isinstance(outcome, Answer):
        return outcome
    raise outcome
