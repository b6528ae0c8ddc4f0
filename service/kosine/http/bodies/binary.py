"""Requests whose body is nothing but vectors; what else is asked stands in the query string."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from kosine.errors import BadK, InvalidValue, UnknownField
from kosine.http.bodies.floats import from_npy, from_raw
from kosine.http.problems import printable
from kosine.serving.request import SearchRequest

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("decode_npy", "decode_raw")

_MOST_FIELDS = 8
_MOST_DIGITS = 19


def decode_raw(body: bytes, query_string: bytes) -> SearchRequest:
    """`application/octet-stream`: one query where there are as many numbers as dimensions, else several.

    Raises InvalidValue, UnknownField or BadK.
    """
    return SearchRequest(vectors=from_raw(body), many=None, k=_k(query_string))


def decode_npy(body: bytes, query_string: bytes) -> SearchRequest:
    """`application/x-npy`: of shape (d,) one query, of (n, d) several. Raises as `decode_raw`."""
    vectors, k = from_npy(body), _k(query_string)
    if vectors.ndim == 1:
        return SearchRequest(vectors=(vectors,), k=k)
    return SearchRequest(vectors=vectors, many=True, k=k)


def _k(query_string: bytes) -> int | None:
    return _parsed(query_string).get("k") if query_string else None


@lru_cache(maxsize=64)
def _parsed(query_string: bytes) -> dict[str, int]:
    """Callers send the same few again and again. Of duplicate names the last one counts."""
    try:
        pairs = parse_qsl(query_string.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise InvalidValue("expected a query string such as ?k=10", path="?") from None
    for name, _ in pairs:
        if name not in _PARAMETERS:
            shown, known = printable(name), list(_PARAMETERS)
            raise UnknownField(
                f"unknown parameter {shown}; known are {', '.join(known)}", field=shown, known=known
            )
    return {name: _PARAMETERS[name](value) for name, value in pairs}


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _MOST_DIGITS:
        raise BadK(f"expected k to be a whole number of at most 64 bits, got {printable(text)}", path="?k")
    return int(text)


_PARAMETERS: dict[str, Callable[[str], int]] = {"k": _count}
