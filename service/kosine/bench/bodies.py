"""Queries as the service reads them, in each format that a caller may choose."""

from __future__ import annotations

import base64
import io
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ("BodyFormat", "Question", "question")

BodyFormat = Literal["json", "base64", "binary", "npy"]

_NONE: Mapping[str, object] = MappingProxyType({})


class Question(NamedTuple):
    """What a request carries."""

    content_type: str
    body: bytes
    parameters: str = ""
    """What the path ends with."""


def question(
    query: NDArray[np.float64], *, k: int, body: BodyFormat, fields: Mapping[str, object] = _NONE
) -> Question:
    """The `k` items most similar to `query` [d], which is rounded to float32 unless it is sent as text.

    Only JSON has room for more `fields`.

    >>> question(np.array([1.0, 2.0]), k=3, body="json")
    Question(content_type='application/json', body=b'{"embedding":[1.0,2.0],"k":3}', parameters='')
    """
    numbers = query.astype("<f4")
    match body:
        case "json":
            return _json(query.tolist(), k, fields)
        case "base64":
            return _json(base64.b64encode(numbers.tobytes()).decode("ascii"), k, fields)
        case "binary":
            return Question("application/octet-stream", numbers.tobytes(), f"?k={k}")
        case "npy":
            np.save(file := io.BytesIO(), numbers)
            return Question("application/x-npy", file.getvalue(), f"?k={k}")


def _json(embedding: list[float] | str, k: int, fields: Mapping[str, object]) -> Question:
    return Question("application/json", msgspec.json.encode({"embedding": embedding, "k": k, **fields}))
