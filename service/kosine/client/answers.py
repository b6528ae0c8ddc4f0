"""What the service answers, as arrays and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from kosine.client.errors import UnexpectedAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

__all__ = (
    "IndexInfo",
    "IndexNames",
    "Item",
    "Matches",
    "Scores",
    "from_json",
    "to_item",
    "to_many_matches",
    "to_matches",
    "to_scores",
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """What one query found, best first. Iterates as pairs of id and score."""

    ids: NDArray[np.int64] | NDArray[np.str_]
    """[k], or as many as there are; row numbers where the index has no ids."""
    scores: NDArray[np.float32]
    """[k]"""
    version: str
    """Which version of the index answered; equal on every replica that loaded the same bytes."""
    embeddings: NDArray[np.float32] | None = None
    """[k, d], where they were asked for."""
    next: str | None = None
    """Of a page: the cursor of the page behind it, None where nothing is behind it."""

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[int | str, float]]:
        return zip(self.ids.tolist(), self.scores.tolist(), strict=True)


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """A stored vector."""

    id: int | str
    embedding: NDArray[np.float32]
    """[d]; of length 1 with metric cosine, whatever the file held."""
    version: str


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What given items score against one query."""

    scores: NDArray[np.float32]
    """[n], in the order the items were given; NaN for one that the index does not hold."""
    version: str


class IndexInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What `GET /indexes/{name}` says that a caller acts on; None until a version is loaded."""

    name: str
    state: str
    version: str | None = None
    rows: int | None = None
    dim: int | None = None
    metric: str | None = None
    k: int | None = None
    max_k: int | None = None


class IndexNames(msgspec.Struct, frozen=True, kw_only=True):
    """What `GET /indexes` says."""

    indexes: tuple[IndexInfo, ...]
    default_index: str | None = None


_Pairs = list[tuple[int | str, float]]


_Rows = list[list[float]]


class _Found(msgspec.Struct, frozen=True):
    result: _Pairs
    version: str
    embeddings: _Rows | None = None
    next: str | None = None


class _FoundMany(msgspec.Struct, frozen=True):
    results: list[_Pairs]
    version: str
    embeddings: list[_Rows] | None = None


class _Stored(msgspec.Struct, frozen=True):
    id: int | str
    embedding: list[float]
    version: str


class _Scored(msgspec.Struct, frozen=True):
    scores: list[float | None]
    version: str


def to_matches(body: bytes) -> Matches:
    """The answer to one query, as MessagePack. Raises UnexpectedAnswer."""
    found = _decoded(msgspec.msgpack.decode, body, _Found)
    return _matches(found.result, found.version, found.embeddings, found.next)


def to_many_matches(body: bytes) -> list[Matches]:
    """The answers to several queries, as MessagePack. Raises UnexpectedAnswer."""
    found = _decoded(msgspec.msgpack.decode, body, _FoundMany)
    none: list[_Rows | None] = [None] * len(found.results)
    rows = none if found.embeddings is None else found.embeddings
    return [
        _matches(result, found.version, embeddings)
        for result, embeddings in zip(found.results, rows, strict=True)
    ]


def to_item(body: bytes) -> Item:
    """A stored vector, as JSON. Raises UnexpectedAnswer."""
    found = from_json(body, _Stored)
    return Item(found.id, np.array(found.embedding, np.float32), found.version)


def to_scores(body: bytes) -> Scores:
    """Scores of given items, as JSON. Raises UnexpectedAnswer."""
    found = from_json(body, _Scored)
    return Scores(np.array(found.scores, np.float32), found.version)


def from_json(body: bytes, kind: type[T]) -> T:
    """A JSON body as what it should be. Raises UnexpectedAnswer."""
    return _decoded(msgspec.json.decode, body, kind)


def _matches(pairs: _Pairs, version: str, embeddings: _Rows | None, following: str | None = None) -> Matches:
    ids: NDArray[Any] = np.array([each for each, _ in pairs]) if pairs else np.zeros(0, np.int64)
    scores = np.array([score for _, score in pairs], np.float32)
    vectors = None if embeddings is None else np.array(embeddings, np.float32)
    return Matches(ids, scores, version, vectors, following)


def _decoded(decode: Callable[..., T], body: bytes, kind: type[T]) -> T:
    try:
        return decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnexpectedAnswer(
            f"expected an answer of kosine, got something else: {error}; right URL?", status=200
        ) from None
