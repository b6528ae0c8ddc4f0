"""Answers queries: the only implementation behind every door, the fast path and the documented routes.

A `Door` reads the body and writes the answer; what is between knows no format. Every check comes before the
queue, cheapest first, so that what one caller sends wrong costs nobody else.
The deadline runs from the moment the body is there; reading the body has its own.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

from kosine.errors import Abandoned, BodyTimeout, ShuttingDown, UnknownIndex
from kosine.http.asgi import connection_of
from kosine.http.bodies.formats import Door, decoder_of, encoder_of
from kosine.http.body import arrived_body, read_body
from kosine.http.headers import check_body_head, check_version, is_lenient, requested_timeout
from kosine.http.problems import Reply, as_refusal, problem_reply
from kosine.http.wire import checked_name
from kosine.metrics import UNKNOWN_INDEX
from kosine.serving.batch import Answer
from kosine.serving.searching import Terms, search

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kosine.errors import RequestError
    from kosine.http.asgi import Receive, Scope
    from kosine.http.failure_log import FailureLog
    from kosine.http.headers import RequestIds
    from kosine.metrics import Metrics
    from kosine.serving.registry import Registry
    from kosine.serving.request import SearchRequest, SearchResult
    from kosine.settings import ServiceSettings

__all__ = ("COS", "CosEndpoint")

COS = Door(decoder=decoder_of, encoder=encoder_of)
_LENIENT = (b"preference-applied", b"handling=lenient")
_NOBODY_LISTENS = Reply(499, [(b"content-length", b"0")], b"")
"""Never seen by anyone; a server must be given something."""


class CosEndpoint:
    """`POST /indexes/{name}/cos`, and whatever else is a search."""

    def __init__(
        self,
        *,
        registry: Registry,
        metrics: Metrics,
        settings: ServiceSettings,
        request_ids: RequestIds,
        failures: FailureLog,
    ) -> None:
        self._registry = registry
        self._metrics = metrics
        self._body_limit = int(settings.body_limit)
        self._body_timeout = float(settings.body_timeout)
        self._max_timeout = float(settings.max_timeout)
        self._request_ids = request_ids
        self._failures = failures

    async def answer(self, name: str | None, scope: Scope, receive: Receive, door: Door = COS) -> Reply:
        """The reply for the index `name`; None where the default index was asked for and there is none."""
        started = perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = self._request_ids.of(headers)
        try:
            encode, decode = door.encoder(headers), door.decoder(headers)
            check_body_head(headers, limit=self._body_limit)
            connection = connection_of(scope)
            body = arrived_body(connection, scope, limit=self._body_limit)
            if body is None:
                body = await read_body(receive, limit=self._body_limit, seconds=self._body_timeout)
            request = decode(body, scope["query_string"])
            gone = _stays if connection is None else connection.is_gone
            result = await self._search(name, request, headers, gone)
            reply = _reply(*encode(result), result, request_id)
        except Abandoned:
            self._metrics.request(self._label(name), "abandoned", perf_counter() - started)
            return _NOBODY_LISTENS
        except asyncio.CancelledError:
            # Only a server out of grace cancels a request: its client is told, then the task ends.
            stopping = ShuttingDown("the service is stopping; ask another replica", retry_after=1)
            return self._refuse(stopping, name, request_id, perf_counter() - started)
        except Exception as error:  # noqa: BLE001  the edge: everything becomes an answer and a log line
            return self._refuse(error, name, request_id, perf_counter() - started)
        self._metrics.request(name or UNKNOWN_INDEX, "ok", perf_counter() - started)
        return reply

    async def _search(
        self,
        name: str | None,
        request: SearchRequest,
        headers: Mapping[bytes, bytes],
        abandoned: Callable[[], bool],
    ) -> SearchResult:
        if name is None:
            raise UnknownIndex("no default_index is set; POST to /indexes/{name}/cos")
        if name not in self._registry:
            name = checked_name(name)
        with self._registry.lease(name) as version:
            if b"kosine-expect-version" in headers:
                check_version(headers, version.info.version)
            terms = Terms(
                deadline=asyncio.get_running_loop().time() + self._timeout(headers, version.settings.timeout),
                abandoned=abandoned,
                lenient=b"prefer" in headers and is_lenient(headers),
            )
            return await search(version, request, terms)

    def _timeout(self, headers: Mapping[bytes, bytes], usual: float) -> float:
        sent = headers.get(b"x-request-timeout-ms")
        return usual if sent is None else requested_timeout(sent, longest=self._max_timeout)

    def _refuse(self, error: Exception, name: str | None, request_id: str, seconds: float) -> Reply:
        refusal = as_refusal(error)
        self._metrics.request(self._label(name), refusal.code, seconds)
        cause = error.__cause__ if refusal is error else error
        self._failures.write(refusal, request_id=request_id, index=name, cause=cause)
        return problem_reply(refusal, request_id=request_id, close=isinstance(refusal, BodyTimeout))

    def _label(self, name: str | None) -> str:
        return name if name is not None and name in self._registry else UNKNOWN_INDEX


def _stays() -> bool:
    return False


def _reply(content_type: bytes, body: bytes, result: SearchResult, request_id: str) -> Reply:
    headers = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"kosine-version", result.version.encode("ascii")),
        (b"server-timing", _timing(result.outcomes)),
        (b"x-request-id", request_id.encode("ascii")),
    ]
    if not result.many or not result.errors:
        return Reply(200, headers, body)
    return Reply(207, [*headers, _LENIENT], body)


def _timing(outcomes: list[Answer | RequestError]) -> bytes:
    """Of the query that took longest."""
    queue, engine = 0.0, 0.0
    for outcome in outcomes:
        if isinstance(outcome, Answer):
            queue = max(queue, outcome.queue_seconds)
            engine = max(engine, outcome.engine_seconds)
    return b"queue;dur=%.3f, engine;dur=%.3f" % (queue * 1e3, engine * 1e3)
