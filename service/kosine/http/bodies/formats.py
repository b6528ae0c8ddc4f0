"""Which format a body has and which one its answer gets: by Content-Type and by Accept.

A new format is a function and a row of a table here; what lies behind it never hears of formats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import msgspec

from kosine.errors import NotAcceptable, UnsupportedMediaType
from kosine.http.bodies.accept import negotiate
from kosine.http.bodies.binary import decode_npy, decode_raw
from kosine.http.bodies.npz import encode_npz
from kosine.http.problems import printable
from kosine.http.wire import answer_of, decode_request, encode_result
from kosine.serving.request import SearchRequest, SearchResult

try:
    from kosine.http.bodies.arrow import encode_arrow
except ModuleNotFoundError:  # kosine[arrow] is not installed
    _ARROW: dict[str, Callable[[SearchResult], bytes]] = {}
else:
    _ARROW = {"application/vnd.apache.arrow.stream": encode_arrow}

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


def _written(content_type: str, write: Callable[[SearchResult], bytes]) -> Encode:
    media_type = content_type.encode("ascii")
    return lambda result: (media_type, write(result))


def _encode_msgpack(result: SearchResult) -> bytes:
    return _MSGPACK.encode(answer_of(result))


_JSON = b"application/json"
_JSON_SUFFIX = re.compile(r"[a-z0-9!#$&^_.-]+/[a-z0-9!#$&^_.-]+\+json")
_MSGPACK = msgspec.msgpack.Encoder()

_WRITERS: dict[str, Callable[[SearchResult], bytes]] = {
    "application/json": encode_result,
    "application/msgpack": _encode_msgpack,
    "application/vnd.msgpack": _encode_msgpack,
    "application/x-npz": encode_npz,
    **_ARROW,
}

DECODERS: Mapping[str, Decode] = MappingProxyType(
    {
        "application/json": decode_request,
        "application/octet-stream": decode_raw,
        "application/x-npy": decode_npy,
    }
)
"""By the media type of a body, in lower case; of text in UTF-8."""

ENCODERS: Mapping[str, Encode] = MappingProxyType(
    {content_type: _written(content_type, write) for content_type, write in _WRITERS.items()}
)
"""By the media type that is accepted; the first is what callers get who accept anything."""

_encode_json = ENCODERS["application/json"]


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
    """What writes the answer for whoever sent these headers. Raises NotAcceptable."""
    accepted = headers.get(b"accept")
    if accepted is None or accepted in {b"*/*", _JSON}:
        return _encode_json
    return _preferred(accepted)


@lru_cache(maxsize=64)
def _preferred(accepted: bytes) -> Encode:
    """Callers send the same header with every request."""
    text = accepted.decode("latin-1")
    found = negotiate(text, tuple(ENCODERS))
    if found is None:
        raise NotAcceptable(f"answers are {', '.join(ENCODERS)}; got Accept: {printable(text)}")
    return ENCODERS[found]


def _partition(parameter: str) -> tuple[str, str, str]:
    name, equals, value = parameter.partition("=")
    return name.strip(), equals, value.strip()
