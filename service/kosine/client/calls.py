"""A request as a value, with what makes an answer of its response: what both clients send. Pure."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar
from urllib.parse import quote, urlencode

import msgspec
import numpy as np

from kosine.client.answers import (
    IndexInfo,
    IndexNames,
    Item,
    Matches,
    Scores,
    from_json,
    to_item,
    to_many_matches,
    to_matches,
    to_scores,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike, NDArray

__all__ = (
    "Call",
    "CommonOptions",
    "ItemOptions",
    "ItemPageOptions",
    "PageOptions",
    "SearchOptions",
    "list_indexes",
    "score",
    "score_id",
    "search",
    "search_id",
    "search_ids",
    "search_many",
    "show_index",
    "show_item",
)

T = TypeVar("T")


_LISTS = frozenset({"exclude", "include"})
"""May be longer than a URL: where there are any, the query is JSON."""
_FIELDS = frozenset(
    {"k", "mask", "not_mask", "min_score", "with_embeddings", "include_self", "after", *_LISTS}
)
"""Options that are fields of a body of JSON, or parameters beside one of bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request. No call changes anything, so each may be sent again."""

    method: str
    path: str
    read: Callable[[bytes], T]
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class CommonOptions(TypedDict, total=False):
    """What may be said of every question to an index."""

    index: str
    """Otherwise that of the client, or the default index of the service."""
    expect_version: str
    """Which version must answer; VersionMismatch where another one would."""
    timeout: float
    """Seconds for the whole call; otherwise those of the client."""


class SearchOptions(CommonOptions, total=False):
    """What may be said beside the query itself."""

    k: int
    """How many items; otherwise that of the index."""
    exclude: ArrayLike
    """Ids that must not be found."""
    include: ArrayLike
    """Ids of which alone any may be found."""
    mask: str
    """Only items for which the mask of that name is true."""
    not_mask: str
    """Only items for which it is false."""
    min_score: float
    with_embeddings: bool
    """Whether the vectors of what is found are answered, too."""


class ItemOptions(SearchOptions, total=False):
    """What may be said beside items that are the query."""

    include_self: bool
    """Whether the item itself may be found."""


class PageOptions(SearchOptions, total=False):
    """What may be said of pages: `k` is how many items each has, `timeout` is for each."""

    after: str | None
    """The `next` of a page: go on behind it. Otherwise pages begin with the best item."""


class ItemPageOptions(PageOptions, ItemOptions, total=False):
    """What may be said of pages beside an item that is the query."""


def search(embedding: ArrayLike, options: SearchOptions) -> Call[Matches]:
    """The items most similar to `embedding` [d]. Raises ValueError where it is not one row of numbers."""
    row = _rows(embedding, "one embedding of shape (d,)", dims=1)
    if not _LISTS.isdisjoint(options):
        return _posed({"embedding": row.tobytes()}, options, to_matches)
    return Call(
        method="POST",
        path=_path(options),
        read=to_matches,
        content=row.tobytes(),
        headers=_headers(options, "application/octet-stream"),
    )


def search_many(embeddings: ArrayLike, options: SearchOptions) -> Call[list[Matches]]:
    """The same for each row of `embeddings` [n, d]. Raises ValueError where these are no rows of numbers."""
    rows = _rows(embeddings, "embeddings of shape (n, d)", dims=2)
    if not _LISTS.isdisjoint(options):
        return _posed({"embeddings": [row.tobytes() for row in rows]}, options, to_many_matches)
    np.save(file := io.BytesIO(), rows)
    return Call(
        method="POST",
        path=_path(options),
        read=to_many_matches,
        content=file.getvalue(),
        headers=_headers(options, "application/x-npy"),
    )


def search_id(item: int | str, options: ItemOptions) -> Call[Matches]:
    """The items most similar to that of id `item`, which is itself left out."""
    return _posed({"id": _plain(item)}, options, to_matches)


def search_ids(items: ArrayLike, options: ItemOptions) -> Call[list[Matches]]:
    """The same for each of `items` [n]."""
    return _posed({"ids": _plain(items)}, options, to_many_matches)


def show_item(item: int | str, options: CommonOptions) -> Call[Item]:
    """A stored vector. Raises ValueError without an index."""
    return Call(
        method="GET",
        path=f"{_named(options)}/items/{_segment(str(_plain(item)))}",
        read=to_item,
        headers=_headers(options, accept="application/json"),
    )


def score(embedding: ArrayLike, items: ArrayLike, options: CommonOptions) -> Call[Scores]:
    """What `items` [n] score against `embedding` [d]. Raises ValueError as `search`, and without an index."""
    row = _rows(embedding, "one embedding of shape (d,)", dims=1)
    return _scored({"embedding": row.tobytes()}, items, options)


def score_id(item: int | str, items: ArrayLike, options: CommonOptions) -> Call[Scores]:
    """What `items` [n] score against the item of id `item`. Raises ValueError without an index."""
    return _scored({"id": _plain(item)}, items, options)


def _scored(subject: dict[str, Any], items: ArrayLike, options: CommonOptions) -> Call[Scores]:
    return Call(
        method="POST",
        path=f"{_named(options)}/score",
        read=to_scores,
        content=msgspec.json.encode({**subject, "ids": _plain(items)}),
        headers=_headers(options, "application/json", accept="application/json"),
    )


def _posed(subject: dict[str, Any], options: SearchOptions, read: Callable[[bytes], T]) -> Call[T]:
    """As JSON, where bytes are base64."""
    fields = {name: _plain(value) for name, value in options.items() if name in _FIELDS}
    return Call(
        method="POST",
        path=_cos(options),
        read=read,
        content=msgspec.json.encode({**subject, **fields}),
        headers=_headers(options, "application/json"),
    )


def _plain(value: Any) -> Any:
    """Lists and numbers of Python, where they are of NumPy."""
    plain = isinstance(value, bool | int | float | str) and not isinstance(value, np.generic)
    return value if plain else np.asarray(value).tolist()


def _rows(sent: ArrayLike, expected: str, *, dims: int) -> NDArray[np.float32]:
    # What does not fit float32 becomes an infinity, and the service says where it is.
    with np.errstate(over="ignore"):
        rows = np.asarray(sent, dtype="<f4")
    if rows.ndim != dims:
        raise ValueError(f"expected {expected}, got {rows.shape}")
    return rows


def _path(options: SearchOptions) -> str:
    said = {name: _as_text(_plain(value)) for name, value in options.items() if name in _FIELDS}
    return f"{_cos(options)}?{urlencode(said)}" if said else _cos(options)


def _as_text(value: Any) -> str:
    """As JSON writes it; None, which is the first page, is empty."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _cos(options: SearchOptions) -> str:
    return f"{_named(options)}/cos" if "index" in options else "/cos"


def _named(options: CommonOptions) -> str:
    """Only searches have a default index."""
    if "index" not in options:
        raise ValueError("expected index=NAME, of the call or of the client; only searches do without")
    return f"/indexes/{_segment(options['index'])}"


def _headers(
    options: CommonOptions, content_type: str | None = None, *, accept: str = "application/msgpack"
) -> dict[str, str]:
    headers = {"Accept": accept}
    if content_type is not None:
        headers["Content-Type"] = content_type
    if "expect_version" in options:
        headers["Kosine-Expect-Version"] = options["expect_version"]
    return headers


def list_indexes() -> Call[IndexNames]:
    """Every index and its state."""
    return Call(method="GET", path="/indexes", read=lambda body: from_json(body, IndexNames))


def show_index(name: str) -> Call[IndexInfo]:
    """One index."""
    return Call(method="GET", path=f"/indexes/{_segment(name)}", read=lambda body: from_json(body, IndexInfo))


def _segment(name: str) -> str:
    """Whatever it is, it stays one segment of the path: a name that no index can have is unknown."""
    return "%2E" * len(name) if name in {".", ".."} else quote(name, safe="")
