"""Requests whose body is nothing but vectors; what else is asked stands in the query string."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kosine.http.bodies.floats import from_npy, from_raw
from kosine.http.bodies.parameters import parameters_of
from kosine.serving.request import SearchRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ("decode_npy", "decode_raw")


def decode_raw(body: bytes, query_string: bytes) -> SearchRequest:
    """`application/octet-stream`: one query where there are as many numbers as dimensions, else several.

    Raises InvalidValue, UnknownField or BadK.
    """
    return _request(from_raw(body), query_string, many=None)


def decode_npy(body: bytes, query_string: bytes) -> SearchRequest:
    """`application/x-npy`: of shape (d,) one query, of (n, d) several. Raises as `decode_raw`."""
    vectors = from_npy(body)
    if vectors.ndim == 1:
        return _request((vectors,), query_string, many=False)
    return _request(vectors, query_string, many=True)


def _request(
    vectors: NDArray[np.float32] | tuple[NDArray[np.float32]], query_string: bytes, *, many: bool | None
) -> SearchRequest:
    said = parameters_of(query_string)
    return SearchRequest(
        vectors=vectors, many=many, k=said.k, options=said.options, ids_as_text=said.options is not None
    )
