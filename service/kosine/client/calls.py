"""A request as a value, with what makes an answer of its response: what both clients send. Pure."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import quote

import numpy as np

from kosine.client.answers import IndexInfo, IndexNames, Matches, from_json, to_many_matches, to_matches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike, NDArray

__all__ = ("Call", "list_indexes", "search", "search_many", "show_index")

T = TypeVar("T")

_MSGPACK = {"Accept": "application/msgpack"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request. No call changes anything, so each may be sent again."""

    method: str
    path: str
    read: Callable[[bytes], T]
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def search(embedding: ArrayLike, *, index: str | None, k: int | None) -> Call[Matches]:
    """The items most similar to `embedding` [d]; of the default index where `index` is None.

    Raises ValueError where it is not one row of numbers.
    """
    return Call(
        method="POST",
        path=_cos(index, k),
        read=to_matches,
        content=_rows(embedding, "one embedding of shape (d,)", dims=1).tobytes(),
        headers={**_MSGPACK, "Content-Type": "application/octet-stream"},
    )


def search_many(embeddings: ArrayLike, *, index: str | None, k: int | None) -> Call[list[Matches]]:
    """The same for each row of `embeddings` [n, d]. Raises ValueError where these are no rows of numbers."""
    np.save(file := io.BytesIO(), _rows(embeddings, "embeddings of shape (n, d)", dims=2))
    return Call(
        method="POST",
        path=_cos(index, k),
        read=to_many_matches,
        content=file.getvalue(),
        headers={**_MSGPACK, "Content-Type": "application/x-npy"},
    )


def _rows(sent: ArrayLike, expected: str, *, dims: int) -> NDArray[np.float32]:
    # What does not fit float32 becomes an infinity, and the service says where it is.
    with np.errstate(over="ignore"):
        rows = np.asarray(sent, dtype="<f4")
    if rows.ndim != dims:
        raise ValueError(f"expected {expected}, got {rows.shape}")
    return rows


def _cos(index: str | None, k: int | None) -> str:
    path = "/cos" if index is None else f"/indexes/{_segment(index)}/cos"
    return path if k is None else f"{path}?k={k}"


def list_indexes() -> Call[IndexNames]:
    """Every index and its state."""
    return Call(method="GET", path="/indexes", read=lambda body: from_json(body, IndexNames))


def show_index(name: str) -> Call[IndexInfo]:
    """One index."""
    return Call(method="GET", path=f"/indexes/{_segment(name)}", read=lambda body: from_json(body, IndexInfo))


def _segment(name: str) -> str:
    """A name that no index can have stays one segment of the path, and is refused as unknown."""
    return quote(name, safe="")
