"""A request as a value, with what makes an answer of its response: what both clients send. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.parse import quote

import msgspec
import numpy as np

from kosine.client.answers import IndexInfo, IndexNames, Matches, decoded, to_matches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike

__all__ = ("Call", "list_indexes", "search", "show_index")

T = TypeVar("T")

_JSON = {"Content-Type": "application/json"}


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
    with np.errstate(over="ignore"):
        row = np.asarray(embedding, dtype=np.float32)
    if row.ndim != 1:
        raise ValueError(f"expected one embedding of shape (d,), got {row.shape}")
    body = {"embedding": row.tolist()} if k is None else {"embedding": row.tolist(), "k": k}
    return Call(
        method="POST",
        path="/cos" if index is None else f"/indexes/{_segment(index)}/cos",
        read=to_matches,
        content=msgspec.json.encode(body),
        headers=_JSON,
    )


def list_indexes() -> Call[IndexNames]:
    """Every index and its state."""
    return Call(method="GET", path="/indexes", read=lambda body: decoded(body, IndexNames))


def show_index(name: str) -> Call[IndexInfo]:
    """One index."""
    return Call(method="GET", path=f"/indexes/{_segment(name)}", read=lambda body: decoded(body, IndexInfo))


def _segment(name: str) -> str:
    """A name that no index can have stays one segment of the path, and is refused as unknown."""
    return quote(name, safe="")
