"""Which format a body has and which one its answer gets: by Content-Type and by Accept.

A new format is a function and a row of a table here; what lies behind it never hears of formats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from kosine.errors import UnsupportedMediaType
from kosine.http.problems import printable
from kosine.http.wire import decode_request, encode_result
from kosine.serving.request import SearchRequest, SearchResult

__all__ = ("DECODERS", "ENCODERS", "Door", "decoder_of", "encoder_of")


Decode = Callable[[bytes, bytes], SearchRequest]
"""(body, query string) -> request. Raises RequestError."""
Encode = Callable[[SearchResult], tuple[bytes, bytes]]
"""The Content-Type of the answer, and the answer."""


@dataclass(frozen=True, slots=True)
class Door:
    """How one route reads and writes; both are chosen by the head, before the body is read."""

    decoder: Callable[[Mapping[bytes, bytes]], Decode]
    """Raises RequestError."""
    encoder: Callable[[Mapping[bytes, bytes]], Encode]


def _encode_json(result: SearchResult) -> tuple[bytes, bytes]:
    return _JSON, encode_result(result)


_JSON = b"application/json"
_JSON_SUFFIX = re.compile(r"[a-z0-9!#$&^_.-]+/[a-z0-9!#$&^_.-]+\+json")
_ANY = "*/*"

DECODERS: Mapping[str, Decode] = MappingProxyType({"application/json": decode_request})
"""By the media type of a body, in lower case; of text in UTF-8."""

ENCODERS: Mapping[str, Encode] = MappingProxyType({"application/json": _encode_json})
"""By the media type that is accepted; the first is what callers get who accept anything."""


def decoder_of(headers: Mapping[bytes, bytes]) -> Decode:
    """What reads the body that these headers announce. Raises UnsupportedMediaType."""
    sent = headers.get(b"content-type")
    if sent == _JSON:
        return decode_request
    expected = f"expected Content-Type: {' or '.join(DECODERS)}"
    if sent is None:
        raise UnsupportedMediaType(f"{expected}, got none")
    text = sent.decode("latin-1")
    essence, *parameters = (part.strip().lower() for part in text.split(";"))
    found = DECODERS.get(essence) or (decode_request if _JSON_SUFFIX.fullmatch(essence) else None)
    charsets = [value.strip(' "') for name, _, value in map(_partition, parameters) if name == "charset"]
    if found is None or any(charset not in {"utf-8", "utf8"} for charset in charsets):
        raise UnsupportedMediaType(f"{expected}, text in UTF-8, got {printable(text)}")
    return found


def encoder_of(headers: Mapping[bytes, bytes]) -> Encode:
    """What writes the answer for whoever sent these headers: JSON unless they prefer what is in the table."""
    accepted = headers.get(b"accept")
    if accepted is None or accepted in {b"*/*", _JSON}:
        return _encode_json
    ranges = [_weighed(part) for part in accepted.decode("latin-1").lower().split(",")]
    # Among equal weights the first named wins: sorting is stable.
    for essence, weight in sorted(ranges, key=lambda each: -each[1]):
        if weight > 0 and (found := ENCODERS.get(essence)):
            return found
        if weight > 0 and essence in {_ANY, "application/*"}:
            break
    return _encode_json


def _weighed(part: str) -> tuple[str, float]:
    """A media range and its weight; one that is no number counts as 0.

    >>> _weighed("application/json; q=0.5"), _weighed(" */*"), _weighed("a/b;q=x")
    (('application/json', 0.5), ('*/*', 1.0), ('a/b', 0.0))
    """
    essence, *parameters = (each.strip() for each in part.split(";"))
    weights = [value for name, _, value in map(_partition, parameters) if name == "q"]
    try:
        return essence, float(weights[0]) if weights else 1.0
    except ValueError:
        return essence, 0.0


def _partition(parameter: str) -> tuple[str, str, str]:
    name, equals, value = parameter.partition("=")
    return name.strip(), equals, value.strip()
