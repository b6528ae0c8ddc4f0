"""The routes of the protocol, below /v2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from litestar import Request, Response, Router, get, post
from litestar.exceptions import HTTPException
from litestar.openapi import ResponseSpec
from litestar.params import FromPath  # noqa: TC002  Litestar reads the annotations

from kosine.http.inference.exchange import InferenceError, as_inference_error, infer
from kosine.http.inference.metadata import (
    ModelMetadata,
    ModelReady,
    ServerLive,
    ServerMetadata,
    ServerReady,
    model_metadata,
    server_metadata,
)
from kosine.http.inference.operation import InferAnswer, InferOperation
from kosine.http.openapi import ANSWER_HEADERS, REQUEST_ID_HEADER
from kosine.http.query_routes import framed
from kosine.http.wire import checked_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar.handlers import HTTPRouteHandler

    from kosine.http.asgi import Receive, Scope
    from kosine.http.cos import CosEndpoint
    from kosine.serving.health import Health
    from kosine.serving.registry import Registry

    Refuse = Callable[[Request[Any, Any, Any], Exception], Response[bytes]]

__all__ = ("inference_routes",)

T = TypeVar("T")

_OK, _UNAVAILABLE = 200, 503


def inference_routes(*, endpoint: CosEndpoint, registry: Registry, health: Health, refuse: Refuse) -> Router:
    """Health, metadata and inference; `refuse` answers errors as elsewhere, to be said in other words."""
    handlers = [*_health_routes(health), *_model_routes(registry), *_infer_routes(endpoint)]

    def refuse_here(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        return _in_other_words(refuse(request, error))

    return Router(
        "/v2",
        route_handlers=handlers,
        exception_handlers={Exception: refuse_here, HTTPException: refuse_here},
        tags=["Open Inference Protocol v2"],
    )


def _health_routes(health: Health) -> list[HTTPRouteHandler]:
    @get("/", operation_id="server_metadata", summary="What answers here", **_described())
    async def show_server() -> ServerMetadata:
        return server_metadata()

    @get("/health/live", operation_id="server_live", summary="200, or 503: restart it", **_described(503))
    async def live() -> Response[ServerLive]:
        return _answer(ServerLive(live=True), unless=health.live())

    @get("/health/ready", operation_id="server_ready", summary="200, or 503: not yet", **_described(503))
    async def ready() -> Response[ServerReady]:
        return _answer(ServerReady(ready=True), unless=health.ready())

    return [show_server, live, ready]


def _model_routes(registry: Registry) -> list[HTTPRouteHandler]:
    def metadata(name: str) -> ModelMetadata:
        with registry.lease(checked_name(name)) as version:
            return model_metadata(version)

    @get(
        "/models/{name:str}",
        operation_id="model_metadata",
        summary="Inputs and outputs of an index",
        **_described(404, 503),
    )
    async def show_model(name: FromPath[str]) -> ModelMetadata:
        return metadata(name)

    @get(
        "/models/{name:str}/ready",
        operation_id="model_ready",
        summary="200 where the index answers, else 503",
        **_described(404, 503),
    )
    async def model_ready(name: FromPath[str]) -> ModelReady:
        return ModelReady(name=metadata(name).name, ready=True)

    return [show_model, model_ready]


def _infer_routes(endpoint: CosEndpoint) -> list[HTTPRouteHandler]:
    described: dict[str, Any] = {
        "status_code": _OK,
        "operation_class": InferOperation,
        "response_headers": ANSWER_HEADERS,
        "responses": _refusals(404, 408, 409, 413, 415, 422, 429, 503, 504),
    }

    @post(
        "/models/{name:str}/infer",
        operation_id="infer",
        summary="The items most similar to vectors",
        **described,
    )
    async def infer_model(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[InferAnswer]:
        return await _through(endpoint, name, request)

    @post(
        "/models/{name:str}/versions/{version:str}/infer",
        operation_id="infer_version",
        summary="The same, or 409 where another version answers now",
        **described,
    )
    async def infer_version(
        request: Request[Any, Any, Any], name: FromPath[str], version: FromPath[str]
    ) -> Response[InferAnswer]:
        return await _through(endpoint, name, request, version=version)

    return [infer_model, infer_version]


async def _through(
    endpoint: CosEndpoint, name: str, request: Request[Any, Any, Any], *, version: str | None = None
) -> Response[InferAnswer]:
    scope, receive = cast("Scope", request.scope), cast("Receive", request.receive)
    reply = await infer(endpoint, name, scope, receive, version=version)
    return cast("Response[InferAnswer]", framed(reply))


def _described(*statuses: int) -> dict[str, Any]:
    return {"response_headers": [REQUEST_ID_HEADER], "responses": _refusals(*statuses)}


def _refusals(*statuses: int) -> dict[int, ResponseSpec]:
    return {
        status: ResponseSpec(data_container=InferenceError, description="Why not.", generate_examples=False)
        for status in (400, *statuses, 500)
    }


def _answer(good: T, *, unless: list[str]) -> Response[T]:
    if unless:
        refused = Response(InferenceError("; ".join(unless)), status_code=_UNAVAILABLE)
        return cast("Response[T]", refused)
    return Response(good)


def _in_other_words(response: Response[bytes]) -> Response[bytes]:
    return Response(
        as_inference_error(response.content),
        status_code=response.status_code,
        media_type="application/json",
        headers={name: value for name, value in response.headers.items() if name != "content-length"},
    )
