"""What the service answers, as arrays and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from kosine.client.errors import UnexpectedAnswer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ("IndexInfo", "IndexNames", "Matches", "decoded", "to_matches")

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

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[int | str, float]]:
        return zip(self.ids.tolist(), self.scores.tolist(), strict=True)


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


class _Found(msgspec.Struct, frozen=True):
    result: list[tuple[int | str, float]]
    version: str


def to_matches(body: bytes) -> Matches:
    """The answer to one query. Raises UnexpectedAnswer."""
    found = decoded(body, _Found)
    ids: NDArray[Any] = np.array([each for each, _ in found.result])
    if not found.result:
        ids = ids.astype(np.int64)
    return Matches(ids, np.array([score for _, score in found.result], np.float32), found.version)


def decoded(body: bytes, kind: type[T]) -> T:
    """A JSON body as what it should be. Raises UnexpectedAnswer."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnexpectedAnswer(
            f"expected an answer of kosine, got something else: {error}; right URL?", status=200
        ) from None
