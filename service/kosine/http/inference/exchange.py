"""An inference request through the endpoint of every search, and refusals in the form of the protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from kosine.http.bodies.formats import Door
from kosine.http.inference.tensors import read_request, write_answer
from kosine.http.problems import Reply
from kosine.serving.batch import Answer
from kosine.serving.request import SearchOptions, SearchRequest

if TYPE_CHECKING:
    from kosine.http.asgi import Receive, Scope
    from kosine.http.bodies.formats import Decode, Encode
    from kosine.http.cos import CosEndpoint
    from kosine.http.inference.tensors import InferRequest
    from kosine.serving.request import SearchResult

__all__ = ("InferenceError", "as_inference_error", "infer")

_JSON_LENGTH = b"inference-header-content-length"
_FIRST_REFUSAL = 400
_NOT_OF_THE_PROTOCOL = {b"prefer", b"accept", b"kosine-expect-version"}


class InferenceError(msgspec.Struct):
    """How the protocol tells of any refusal."""

    error: str


class _Problem(msgspec.Struct):
    code: str
    detail: str


class _Exchange:
    """What the request said that its answer repeats."""

    def __init__(self, index: str, json_length: bytes | None) -> None:
        self._index = index
        self._json_length = json_length
        self._posed: InferRequest | None = None
        self.answered_json: int | None = None
        """Bytes of JSON before the tensors of the answer; None where there are none behind it."""

    def decode(self, body: bytes, _query_string: bytes) -> SearchRequest:
        self._posed = read_request(body, json_length=self._json_length)
        mask, not_mask = self._posed.mask, self._posed.not_mask
        narrows = mask is not None or not_mask is not None
        return SearchRequest(
            vectors=self._posed.vectors,
            many=True,
            k=self._posed.k,
            options=SearchOptions(mask=mask, not_mask=not_mask) if narrows else None,
        )

    def encode(self, result: SearchResult) -> tuple[bytes, bytes]:
        assert self._posed is not None  # noqa: S101  what was not read is not answered
        answers = [each for each in result.outcomes if isinstance(each, Answer)]
        body, self.answered_json = write_answer(
            index=self._index,
            version=result.version,
            request=self._posed,
            ids=[each.ids for each in answers],
            scores=[each.scores for each in answers],
        )
        return (b"application/json" if self.answered_json is None else b"application/octet-stream"), body

    def door(self) -> Door:
        """Media types do not matter: what is behind the JSON is told by its length."""
        decode: Decode = self.decode
        encode: Encode = self.encode
        return Door(decoder=lambda _headers: decode, encoder=lambda _headers: encode)


async def infer(
    endpoint: CosEndpoint, index: str, scope: Scope, receive: Receive, *, version: str | None = None
) -> Reply:
    """The reply to an inference request; by `version` alone, where one is named."""
    headers = [(name, value) for name, value in scope["headers"] if name not in _NOT_OF_THE_PROTOCOL]
    exchange = _Exchange(index, dict(headers).get(_JSON_LENGTH))
    if version is not None:
        headers.append((b"kosine-expect-version", version.encode("utf-8", "replace")))
    reply = await endpoint.answer(index, {**scope, "headers": headers}, receive, exchange.door())
    if reply.status >= _FIRST_REFUSAL:
        return _told(reply)
    if exchange.answered_json is not None:
        reply.headers.append((_JSON_LENGTH, b"%d" % exchange.answered_json))
    return reply


def as_inference_error(body: bytes) -> bytes:
    """A problem body in the protocol's words.

    >>> as_inference_error(b'{"code": "bad_k", "detail": "expected k from 1 to 1000, got 0"}')
    b'{"error":"bad_k: expected k from 1 to 1000, got 0"}'
    """
    problem = msgspec.json.decode(body, type=_Problem)
    return msgspec.json.encode(InferenceError(f"{problem.code}: {problem.detail}"))


def _told(reply: Reply) -> Reply:
    if not reply.body:
        return reply
    body = as_inference_error(reply.body)
    told = {b"content-type": b"application/json", b"content-length": b"%d" % len(body)}
    return Reply(reply.status, [(name, told.get(name, value)) for name, value in reply.headers], body)
