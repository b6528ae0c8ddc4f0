"""A request as a value, with what makes an answer of its response: what both clients send. Pure."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar
from urllib.parse import quote

import msgspec
import numpy as np

from kosine.client.answers import IndexInfo, IndexNames, Matches, from_json, to_many_matches, to_matches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike, NDArray

__all__ = (
    "Call",
    "ItemOptions",
    "SearchOptions",
    "list_indexes",
    "search",
    "search_id",
    "search_ids",
    "search_many",
    "show_index",
)

T = TypeVar("T")


_FIELDS = frozenset(
    {"exclude", "include", "mask", "not_mask", "min_score", "with_embeddings", "include_self"}
)
"""Options that are fields of a body and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request. No call changes anything, so each may be sent again."""

    method: str
    path: str
    read: Callable[[bytes], T]
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class SearchOptions(TypedDict, total=False):
    """What may be said beside the query itself."""

    k: int
    """How many items; otherwise that of the index."""
    index: str
    """Otherwise that of the client, or the default index of the service."""
    expect_version: str
    """Which version must answer; VersionMismatch where another one would."""
    timeout: float
    """Seconds for the whole call; otherwise those of the client."""
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


def search(embedding: ArrayLike, options: SearchOptions) -> Call[Matches]:
    """The items most similar to `embedding` [d]. Raises ValueError where it is not one row of numbers."""
    row = _rows(embedding, "one embedding of shape (d,)", dims=1)
    if _narrowed(options):
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
    if _narrowed(options):
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
    return _posed({"id": np.asarray(item).item()}, options, to_matches)


def search_ids(items: ArrayLike, options: ItemOptions) -> Call[list[Matches]]:
    """The same for each of `items` [n]."""
    return _posed({"ids": np.asarray(items).tolist()}, options, to_many_matches)


def _narrowed(options: SearchOptions) -> bool:
    """Whether more is asked than the parameters of a URL can say."""
    return any(name in options for name in _FIELDS)


def _posed(subject: dict[str, Any], options: SearchOptions, read: Callable[[bytes], T]) -> Call[T]:
    """As JSON, where bytes are base64."""
    fields = {name: _plain(value) for name, value in options.items() if name in {"k", *_FIELDS}}
    return Call(
        method="POST",
        path=_cos(options),
        read=read,
        content=msgspec.json.encode({**subject, **fields}),
        headers=_headers(options, "application/json"),
    )


def _plain(value: Any) -> Any:
    """Lists and numbers of Python, where they are of NumPy."""
    return value if isinstance(value, bool | int | float | str) else np.asarray(value).tolist()


def _rows(sent: ArrayLike, expected: str, *, dims: int) -> NDArray[np.float32]:
    # What does not fit float32 becomes an infinity, and the service says where it is.
    with np.errstate(over="ignore"):
        rows = np.asarray(sent, dtype="<f4")
    if rows.ndim != dims:
        raise ValueError(f"expected {expected}, got {rows.shape}")
    return rows


def _path(options: SearchOptions) -> str:
    return f"{_cos(options)}?k={options['k']}" if "k" in options else _cos(options)


def _cos(options: SearchOptions) -> str:
    return f"/indexes/{_segment(options['index'])}/cos" if "index" in options else "/cos"


def _headers(options: SearchOptions, content_type: str) -> dict[str, str]:
    headers = {"Accept": "application/msgpack", "Content-Type": content_type}
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
    """A name that no index can have stays one segment of the path, and is refused as unknown."""
    return quote(name, safe="")
