"""What the platform asks: alive, ready, and the numbers. Without a word about hosts or callers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from litestar import Request, Response, get
from msgspec import Struct
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest

from kosine.errors import UnknownIndex
from kosine.http.openapi import REQUEST_ID_HEADER, problems

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar.handlers import HTTPRouteHandler
    from prometheus_client import CollectorRegistry

    from kosine.metrics import Metrics
    from kosine.serving.health import Health

__all__ = ("Probe", "probe_routes")

_OK, _UNAVAILABLE = 200, 503


class Probe(Struct):
    """200 with no reasons, or 503 with some."""

    ok: bool
    reasons: list[str]


def probe_routes(*, health: Health, metrics: Metrics) -> list[HTTPRouteHandler]:
    """`GET /livez`, `GET /readyz` and `GET /metrics`."""

    @get(
        "/livez",
        operation_id="livez",
        summary="Whether the process should be kept (200) or restarted (503)",
        response_headers=[REQUEST_ID_HEADER],
        responses=problems(),
    )
    async def livez() -> Response[Probe]:
        return _probe(health.live())

    @get(
        "/readyz",
        operation_id="readyz",
        summary="Whether to send queries here (200) or not (503)",
        response_headers=[REQUEST_ID_HEADER],
        responses=problems(),
    )
    async def readyz() -> Response[Probe]:
        return _probe(health.ready())

    @get(
        "/metrics",
        media_type="text/plain",
        operation_id="metrics",
        summary="Prometheus or OpenMetrics text",
        response_headers=[REQUEST_ID_HEADER],
        responses=problems(),
    )
    async def show_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        # The process's own numbers are read from files, so a scrape is a thread's work.
        text, content_type = await asyncio.to_thread(_exposition, metrics, request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})

    return [livez, readyz, show_metrics]


def _probe(reasons: list[str]) -> Response[Probe]:
    return Response(Probe(ok=not reasons, reasons=reasons), status_code=_UNAVAILABLE if reasons else _OK)


def _exposition(metrics: Metrics, accept: str) -> tuple[bytes, str]:
    encode, content_type = _encoder(accept)
    try:
        return encode(metrics.registry), content_type
    except UnknownIndex:
        # An index was removed on the loop while it was being read here.
        return encode(metrics.registry), content_type


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        # A version the client library cannot compare, such as `version=latest`.
        return generate_latest, CONTENT_TYPE_PLAIN_0_0_4
