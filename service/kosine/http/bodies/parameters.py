"""What the query string says beside a body that is nothing but vectors: fields of a JSON body, as text.

Ids are left as they are written: whether they are numbers or texts is known by the version that answers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from kosine.errors import BadK, InvalidValue, UnknownField
from kosine.http.problems import printable
from kosine.http.wire import MAX_IDS
from kosine.serving.request import SearchOptions

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("Parameters", "parameters_of")

_ID_LISTS = ("exclude", "include")
"""Given as often as there are ids, each one: an id may hold whatever else could part them."""

_MOST_DIGITS = 19
_SHORT = 256
"""Bytes. What is longer holds ids, and is seldom the same again."""


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """What was said; ids in `options` are text, whatever those of the index are."""

    k: int | None = None
    options: SearchOptions | None = None


def parameters_of(query_string: bytes) -> Parameters:
    """What `query_string` says. Raises InvalidValue, UnknownField or BadK."""
    if not query_string:
        return _NOTHING
    return _remembered(query_string) if len(query_string) <= _SHORT else _read(query_string)


@lru_cache(maxsize=64)
def _remembered(query_string: bytes) -> Parameters:
    """Callers send the same few again and again."""
    return _read(query_string)


def _read(query_string: bytes) -> Parameters:
    sent: dict[str, list[str]] = {}
    for name, text in _pairs(query_string):
        if name not in _KNOWN:
            shown, known = printable(name), list(_KNOWN)
            raise UnknownField(
                f"unknown parameter {shown}; known are {', '.join(known)}", field=shown, known=known
            )
        sent.setdefault(name, []).append(text)
    said: dict[str, Any] = {
        name: _ids(name, texts) if name in _ID_LISTS else _READERS[name](name, _only(name, texts))
        for name, texts in sent.items()
    }
    k = said.pop("k", None)
    return Parameters(k=k, options=SearchOptions(**said) if said else None)


def _pairs(query_string: bytes) -> list[tuple[str, str]]:
    most = len(_READERS) + len(_ID_LISTS) * MAX_IDS
    try:
        text = query_string.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=most)
    except ValueError:
        raise InvalidValue(
            f"expected a query string such as ?k=10, percent-encoded UTF-8, of at most {most} parameters",
            path="?",
        ) from None


def _only(name: str, texts: list[str]) -> str:
    if len(texts) > 1:
        raise InvalidValue(f"expected the parameter {name} once, got it {len(texts)} times", path=f"?{name}")
    return texts[0]


def _ids(name: str, texts: list[str]) -> tuple[str, ...]:
    """No id is empty: alone, an empty one is the empty list."""
    if len(texts) > MAX_IDS:
        raise InvalidValue(
            f"expected {name} at most {MAX_IDS} times, got it {len(texts)} times", path=f"?{name}"
        )
    return tuple(filter(None, texts))


def _count(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _MOST_DIGITS:
        raise BadK(
            f"expected {name} to be a whole number of at most 64 bits, got {printable(text)}",
            path=f"?{name}",
        )
    return int(text)


def _as_in_json(kind: type[Any], told: str) -> Callable[[str, str], Any]:
    def read(name: str, text: str) -> Any:
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.DecodeError:
            raise InvalidValue(
                f"expected {name} to be {told}, got {printable(text)}", path=f"?{name}"
            ) from None

    return read


def _text(_name: str, text: str) -> str:
    return text


_READERS: dict[str, Callable[[str, str], Any]] = {
    "k": _count,
    "mask": _text,
    "not_mask": _text,
    "min_score": _as_in_json(float, "a number that fits a double"),
    "with_embeddings": _as_in_json(bool, "true or false"),
    "after": _text,
}
_KNOWN = (*_READERS, *_ID_LISTS)
_NOTHING = Parameters()
