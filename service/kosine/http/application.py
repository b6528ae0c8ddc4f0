"""Puts the HTTP side together: the fast path, the documented routes behind it, and one shape of refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException

from kosine.errors import BadRequest, MethodNotAllowed, NotFound, RequestError
from kosine.http.configuration_routes import configuration_routes
from kosine.http.cos import CosEndpoint
from kosine.http.envelope import REQUEST_ID, Envelope
from kosine.http.failure_log import FailureLog
from kosine.http.fast_path import FastPath
from kosine.http.headers import RequestIds
from kosine.http.index_routes import index_routes
from kosine.http.inference.routes import inference_routes
from kosine.http.openapi import openapi_config
from kosine.http.probe_routes import probe_routes
from kosine.http.problems import as_refusal, printable, problem_reply
from kosine.http.query_routes import framed, query_routes
from kosine.http.version_routes import version_routes

if TYPE_CHECKING:
    from collections.abc import Callable

    from kosine.http.asgi import ASGIApp
    from kosine.http.index_routes import Reloads
    from kosine.metrics import Metrics
    from kosine.serving.health import Health
    from kosine.serving.registry import Registry
    from kosine.serving.status import ConfigurationStatus
    from kosine.settings import ServiceSettings

__all__ = ("Doors", "create_doors", "create_http")


@dataclass(frozen=True, slots=True)
class Doors:
    """Both ways in. They answer alike; `fast` passes on to `documented` what it does not know."""

    fast: ASGIApp
    documented: ASGIApp


def create_http(
    *,
    registry: Registry,
    health: Health,
    metrics: Metrics,
    reloads: Reloads,
    settings: ServiceSettings,
    default_index: Callable[[], str | None],
    configuration: Callable[[], ConfigurationStatus],
) -> ASGIApp:
    """The ASGI application of the service."""
    return create_doors(
        registry=registry,
        health=health,
        metrics=metrics,
        reloads=reloads,
        settings=settings,
        default_index=default_index,
        configuration=configuration,
    ).fast


def create_doors(
    *,
    registry: Registry,
    health: Health,
    metrics: Metrics,
    reloads: Reloads,
    settings: ServiceSettings,
    default_index: Callable[[], str | None],
    configuration: Callable[[], ConfigurationStatus],
) -> Doors:
    """Both doors to one endpoint."""
    request_ids, failures = RequestIds(), FailureLog()
    endpoint = CosEndpoint(
        registry=registry, metrics=metrics, settings=settings, request_ids=request_ids, failures=failures
    )
    routes = Litestar(
        [
            *query_routes(endpoint, default_index=default_index),
            *index_routes(registry=registry, reloads=reloads, default_index=default_index),
            *version_routes(registry=registry, orders=reloads, settings=settings),
            *configuration_routes(configuration),
            *probe_routes(health=health, metrics=metrics),
            inference_routes(endpoint=endpoint, registry=registry, health=health, refuse=_refusing(failures)),
        ],
        exception_handlers={Exception: _refusing(failures), HTTPException: _refusing(failures)},
        openapi_config=openapi_config(),
        logging_config=None,
        request_max_body_size=int(settings.body_limit),
    )
    documented = Envelope(cast("ASGIApp", routes), health=health, request_ids=request_ids)
    fast = FastPath(endpoint=endpoint, routes=documented, health=health, default_index=default_index)
    return Doors(fast=fast, documented=documented)


def _refusing(failures: FailureLog) -> Callable[[Request[Any, Any, Any], Exception], Response[bytes]]:
    def refuse(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        refusal = as_refusal(_translated(error, request))
        request_id: str = request.scope["state"][REQUEST_ID]
        index = request.scope.get("path_params", {}).get("name")
        failures.write(
            refusal,
            request_id=request_id,
            index=index,
            cause=None if isinstance(error, RequestError | HTTPException) else error,
        )
        response = framed(problem_reply(refusal, request_id=request_id))
        if isinstance(error, HTTPException) and error.headers:
            response.headers.update(error.headers)
        return response

    return refuse


def _translated(error: Exception, request: Request[Any, Any, Any]) -> Exception:
    """The framework's own refusals in our words."""
    if not isinstance(error, HTTPException):
        return error
    path = printable(request.scope["path"])
    match error.status_code:
        case NotFound.status:
            return NotFound(f"no path {path}; GET /schema lists those there are")
        case MethodNotAllowed.status:
            allowed = (error.headers or {}).get("allow", "")
            return MethodNotAllowed(f"expected {allowed} on {path}, got {request.method}", allowed=allowed)
        case status if status < 500:  # noqa: PLR2004
            return BadRequest(printable(error.detail, limit=200))
        case _:
            return error
