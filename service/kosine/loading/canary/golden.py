"""Golden queries: a small JSON file of queries and of items that they must find.

    {"queries": [{"id": "sku-9", "k": 10, "expected": ["sku-3", "sku-7"], "min_found": 0.5},
                 {"embedding": [0.1, ...], "expected": ["sku-9"]}]}

It is read and held against the header of the new file before anything else of that is read, so that a
mistake in it costs no load.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta, Struct

from kosine.errors import LoadCode, LoadError, RequestError, Stage
from kosine.loading.source import read_whole
from kosine.serving.query import to_query

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kosine.loading.source import Storage

__all__ = ("MAX_BYTES", "MAX_QUERIES", "Golden", "GoldenQuery", "parse_golden", "read_golden")

MAX_BYTES = 2 * 2**20
MAX_QUERIES = 1000

_MOST_EXPECTED = 1000
_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GoldenQuery:
    """One query: by `embedding` [dim], or by the `id` of an item, which does not find itself."""

    embedding: NDArray[np.float32] | None = None
    id: int | str | None = None
    k: int
    expected: tuple[int | str, ...]
    min_found: float = 1.0
    """Share of the expected ids that must be among the k best."""


@dataclass(frozen=True, slots=True, eq=False)
class Golden:
    """The queries of the file at `uri`."""

    uri: str
    queries: tuple[GoldenQuery, ...]

    def check_fits(self, *, dim: int, texts: bool, max_k: int) -> None:
        """LoadError `bad_golden` at GATE unless an index of that kind can be asked all of it."""
        for number, query in enumerate(self.queries):
            if query.embedding is not None and len(query.embedding) != dim:
                raise _bad(self.uri, f"query {number}: expected {dim} numbers, got {len(query.embedding)}")
            if query.k > max_k:
                raise _bad(self.uri, f"query {number}: expected k of at most max_k {max_k}, got {query.k}")
            named = query.expected if query.id is None else (query.id, *query.expected)
            if any(isinstance(each, str) is not texts for each in named):
                kind = "texts" if texts else "whole numbers"
                raise _bad(self.uri, f"query {number}: ids of this index are {kind}, others are named")


class _Entry(Struct, frozen=True, forbid_unknown_fields=True):
    expected: Annotated[tuple[int | str, ...], Meta(min_length=1, max_length=_MOST_EXPECTED)]
    embedding: Annotated[list[float], Meta(min_length=1)] | None = None
    id: int | str | None = None
    k: Annotated[int, Meta(ge=1)] | None = None
    min_found: Annotated[float, Meta(gt=0, le=1)] = 1.0


class _Wire(Struct, frozen=True, forbid_unknown_fields=True):
    queries: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MAX_QUERIES)]
    """One at a time: a number takes ten times as much memory until it is part of an array."""


def parse_golden(content: bytes, *, uri: str, k: int, metric: str) -> Golden:
    """The queries in `content`; `k` is of those that name none. LoadError `bad_golden` at GATE."""
    try:
        entries = msgspec.json.decode(content, type=_Wire).queries
        queries = [_query(raw, number, uri=uri, k=k, metric=metric) for number, raw in enumerate(entries)]
    except RecursionError:
        raise _bad(uri, "it is nested too deeply") from None
    except ValueError as error:  # of the encoding, of JSON, and of a field
        raise _bad(uri, str(error)[:_SHOWN]) from None
    return Golden(uri, tuple(queries))


def read_golden(storage: Storage, uri: str, *, k: int, metric: str) -> Golden:
    """The file as it is now. LoadError at GATE: the storage's, with file="golden", and `bad_golden`."""
    try:
        fingerprint = storage.fingerprint(uri)
        if fingerprint.size > MAX_BYTES:
            raise _bad(uri, f"expected at most {MAX_BYTES} bytes, got {fingerprint.size}")
        content = read_whole(storage, uri, fingerprint)
    except LoadError as error:
        facts = {**error.facts, "file": "golden"}
        raise LoadError(error.code, f"golden file: {error.detail}", stage=Stage.GATE, **facts) from None
    return parse_golden(content, uri=uri, k=k, metric=metric)


def _query(raw: msgspec.Raw, number: int, *, uri: str, k: int, metric: str) -> GoldenQuery:
    try:
        entry = msgspec.json.decode(raw, type=_Entry)
        if (entry.embedding is None) is (entry.id is None):
            got = "none" if entry.id is None else "both"
            raise ValueError(f"expected one of `embedding` and `id`, got {got}")
        embedding = None
        if entry.embedding is not None:
            embedding = to_query(entry.embedding, dim=len(entry.embedding), metric=metric)
    except RequestError as error:
        raise _bad(uri, f"query {number}: {error.detail}") from None
    except ValueError as error:
        raise _bad(uri, f"query {number}: {str(error)[:_SHOWN]}") from None
    asked = k if entry.k is None else entry.k
    if len(set(entry.expected)) < len(entry.expected):
        raise _bad(uri, f"query {number}: an id is expected twice")
    if asked < entry.min_found * len(entry.expected):
        raise _bad(
            uri,
            f"query {number}: of {len(entry.expected)} expected ids a share of {entry.min_found:g} "
            f"cannot be among the best {asked}",
        )
    return GoldenQuery(
        embedding=embedding, id=entry.id, k=asked, expected=entry.expected, min_found=entry.min_found
    )


def _bad(uri: str, detail: str) -> LoadError:
    return LoadError(
        LoadCode.BAD_GOLDEN,
        f'{uri} is no good file of golden queries: {detail}; expected {{"queries": [{{"id": 5, "k": 10, '
        '"expected": [7, 9], "min_found": 0.5}]}, with "embedding" in place of "id" if you like',
        stage=Stage.GATE,
        file="golden",
    )
