"""The documented door to /cos: for OpenAPI, for other methods' 405, and for whatever misses the fast path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from litestar import Request, Response, post
from litestar.openapi import ResponseSpec
from litestar.params import FromPath  # noqa: TC002  Litestar reads the annotations

from kosine.errors import (
    BadEncoding,
    BadJson,
    BadK,
    BodyTimeout,
    BodyTooLarge,
    DeadlineExceeded,
    DimMismatch,
    EngineFailed,
    IndexNotReady,
    InvalidValue,
    JsonTooDeep,
    NotAcceptable,
    NotFinite,
    Overloaded,
    TooManyRows,
    UnknownField,
    UnknownId,
    UnknownIndex,
    UnsupportedMediaType,
    VersionMismatch,
    ZeroVector,
)
from kosine.http.openapi import ANSWER_HEADERS, problems
from kosine.http.query_operation import CosOperation
from kosine.http.wire import CosAnswer, CosAnswers

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar.handlers import HTTPRouteHandler

    from kosine.http.asgi import Receive, Scope
    from kosine.http.cos import CosEndpoint
    from kosine.http.problems import Reply

__all__ = ("query_routes",)

_REFUSALS = (
    BadEncoding,
    BadJson,
    BadK,
    BodyTimeout,
    BodyTooLarge,
    DeadlineExceeded,
    DimMismatch,
    EngineFailed,
    IndexNotReady,
    InvalidValue,
    JsonTooDeep,
    NotAcceptable,
    NotFinite,
    Overloaded,
    TooManyRows,
    UnknownField,
    UnknownId,
    UnknownIndex,
    UnsupportedMediaType,
    VersionMismatch,
    ZeroVector,
)
_ANSWERS = {
    207: ResponseSpec(
        data_container=CosAnswers,
        description="`Prefer: handling=lenient`: some queries are refused, the others answered.",
        generate_examples=False,
    ),
    **problems(*_REFUSALS),
}


def query_routes(endpoint: CosEndpoint, *, default_index: Callable[[], str | None]) -> list[HTTPRouteHandler]:
    """`POST /indexes/{name}/cos` and `POST /cos`."""

    @post(
        "/indexes/{name:str}/cos",
        status_code=200,
        operation_class=CosOperation,
        operation_id="cos",
        summary="The items most similar to a vector",
        response_headers=ANSWER_HEADERS,
        responses=_ANSWERS,
    )
    async def cos(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[CosAnswer | CosAnswers]:
        return await _through(endpoint, name, request)

    @post(
        "/cos",
        status_code=200,
        operation_class=CosOperation,
        operation_id="cos_default",
        summary="The same for `default_index`",
        response_headers=ANSWER_HEADERS,
        responses=_ANSWERS,
    )
    async def cos_default(request: Request[Any, Any, Any]) -> Response[CosAnswer | CosAnswers]:
        return await _through(endpoint, default_index(), request)

    return [cos, cos_default]


async def _through(
    endpoint: CosEndpoint, name: str | None, request: Request[Any, Any, Any]
) -> Response[CosAnswer | CosAnswers]:
    scope, receive = cast("Scope", request.scope), cast("Receive", request.receive)
    return cast("Response[CosAnswer | CosAnswers]", framed(await endpoint.answer(name, scope, receive)))


def framed(reply: Reply) -> Response[bytes]:
    """A finished reply as the framework's response."""
    headers = {name.decode("ascii"): value.decode("ascii") for name, value in reply.headers}
    return Response(
        reply.body,
        status_code=reply.status,
        media_type=headers.pop("content-type", "application/json"),
        headers=headers,
    )
