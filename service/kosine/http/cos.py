"""Answers one query: the only implementation behind both doors, the fast path and the documented route.

Every check comes before the queue, cheapest first, so that what one caller sends wrong costs nobody else.
The deadline runs from the moment the body is there; reading the body has its own.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

from msgspec import UNSET

from kosine.errors import Abandoned, BodyTimeout, DimMismatch, ShuttingDown, UnknownIndex
from kosine.http.asgi import ABANDONED
from kosine.http.body import read_body
from kosine.http.headers import check_body_head, requested_timeout
from kosine.http.problems import Reply, as_refusal, problem_reply
from kosine.http.wire import check_k, checked_name, decode_query, encode_answer
from kosine.metrics import UNKNOWN_INDEX
from kosine.serving.query import to_query

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from kosine.http.asgi import Receive, Scope
    from kosine.http.failure_log import FailureLog
    from kosine.http.headers import RequestIds
    from kosine.http.wire import CosQuery
    from kosine.metrics import Metrics
    from kosine.serving.batch import Answer
    from kosine.serving.registry import Registry
    from kosine.serving.version import Version
    from kosine.settings import ServiceSettings

__all__ = ("CosEndpoint",)

_JSON = (b"content-type", b"application/json")
_NOBODY_LISTENS = Reply(499, [(b"content-length", b"0")], b"")
"""Never seen by anyone; a server must be given something."""


class CosEndpoint:
    """`POST /indexes/{name}/cos`."""

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

    async def answer(self, name: str | None, scope: Scope, receive: Receive) -> Reply:
        """The reply for the index `name`; None where the default index was asked for and there is none."""
        started = perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = self._request_ids.of(headers)
        try:
            query = await self._read(headers, scope, receive)
            reply = await self._search(name, query, headers, request_id, _abandoned(scope))
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

    async def _read(self, headers: Mapping[bytes, bytes], scope: Scope, receive: Receive) -> CosQuery:
        check_body_head(headers, limit=self._body_limit)
        body = await read_body(scope, receive, limit=self._body_limit, seconds=self._body_timeout)
        return decode_query(body)

    async def _search(
        self,
        name: str | None,
        query: CosQuery,
        headers: Mapping[bytes, bytes],
        request_id: str,
        abandoned: Callable[[], bool],
    ) -> Reply:
        if name is None:
            raise UnknownIndex("no default_index is set; POST to /indexes/{name}/cos")
        with self._registry.lease(checked_name(name)) as version:
            row = _row(query, version)
            settings = version.settings
            k = settings.k if query.k is UNSET else query.k
            check_k(k, max_k=settings.max_k)
            deadline = asyncio.get_running_loop().time() + self._timeout(headers, settings.timeout)
            answer = await version.batcher.search(row, k, deadline=deadline, abandoned=abandoned)
            return _reply(answer, version, request_id)

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
        return name if name is not None and name in self._registry.names() else UNKNOWN_INDEX


def _stays() -> bool:
    return False


def _abandoned(scope: Scope) -> Callable[[], bool]:
    extensions = scope.get("extensions")
    abandoned: Callable[[], bool] = extensions.get(ABANDONED, _stays) if extensions else _stays
    return abandoned


def _row(query: CosQuery, version: Version) -> NDArray[np.float32]:
    try:
        return to_query(query.embedding, dim=version.info.dim, metric=version.info.metric)
    except DimMismatch as error:
        error.facts["version"] = version.info.version
        raise


def _reply(answer: Answer, version: Version, request_id: str) -> Reply:
    body = encode_answer(answer, version.info.version)
    timing = f"queue;dur={answer.queue_seconds * 1e3:.3f}, engine;dur={answer.engine_seconds * 1e3:.3f}"
    headers = [
        _JSON,
        (b"content-length", b"%d" % len(body)),
        (b"kosine-version", version.info.version.encode("ascii")),
        (b"server-timing", timing.encode("ascii")),
        (b"x-request-id", request_id.encode("ascii")),
    ]
    return Reply(200, headers, body)
