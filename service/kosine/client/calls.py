"""A request as a value, with what makes an answer of its response: what both clients send. Pure."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypedDict, TypeVar
from urllib.parse import quote

import numpy as np

from kosine.client.answers import IndexInfo, IndexNames, Matches, from_json, to_many_matches, to_matches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike, NDArray

__all__ = ("Call", "SearchOptions", "list_indexes", "search", "search_many", "show_index")

T = TypeVar("T")


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


def search(embedding: ArrayLike, options: SearchOptions) -> Call[Matches]:
    """The items most similar to `embedding` [d]. Raises ValueError where it is not one row of numbers."""
    return Call(
        method="POST",
        path=_path(options),
        read=to_matches,
        content=_rows(embedding, "one embedding of shape (d,)", dims=1).tobytes(),
        headers=_headers(options, "application/octet-stream"),
    )


def search_many(embeddings: ArrayLike, options: SearchOptions) -> Call[list[Matches]]:
    """The same for each row of `embeddings` [n, d]. Raises ValueError where these are no rows of numbers."""
    np.save(file := io.BytesIO(), _rows(embeddings, "embeddings of shape (n, d)", dims=2))
    return Call(
        method="POST",
        path=_path(options),
        read=to_many_matches,
        content=file.getvalue(),
        headers=_headers(options, "application/x-npy"),
    )


def _rows(sent: ArrayLike, expected: str, *, dims: int) -> NDArray[np.float32]:
    # What does not fit float32 becomes an infinity, and the service says where it is.
    with np.errstate(over="ignore"):
        rows = np.asarray(sent, dtype="<f4")
    if rows.ndim != dims:
        raise ValueError(f"expected {expected}, got {rows.shape}")
    return rows


def _path(options: SearchOptions) -> str:
    path = f"/indexes/{_segment(options['index'])}/cos" if "index" in options else "/cos"
    return f"{path}?k={options['k']}" if "k" in options else path


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
