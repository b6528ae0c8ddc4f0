"""The documented doors: for OpenAPI, for other methods' 405, and for whatever misses the fast path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote_to_bytes

from litestar import Request, Response, get, post
from litestar.openapi import ResponseSpec
from litestar.params import FromPath  # noqa: TC002  Litestar reads the annotations

from kosine.errors import (
    BadCursor,
    BadEncoding,
    BadJson,
    BadK,
    BodyTimeout,
    BodyTooLarge,
    DeadlineExceeded,
    DimMismatch,
    EngineFailed,
    HeadTooLarge,
    IndexNotReady,
    InvalidValue,
    JsonTooDeep,
    NotAcceptable,
    NotFinite,
    Overloaded,
    TooManyIds,
    TooManyRows,
    UnknownField,
    UnknownId,
    UnknownIndex,
    UnknownMask,
    UnsupportedMediaType,
    VersionGone,
    VersionMismatch,
    ZeroVector,
)
from kosine.http.cos import COS
from kosine.http.item_doors import Item, ItemScores, item_door, score_door
from kosine.http.openapi import ANSWER_HEADERS, problems
from kosine.http.query_operation import CosOperation, ScoreOperation, SearchOperation
from kosine.http.wire import CosAnswer, CosAnswers

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar.handlers import HTTPRouteHandler

    from kosine.http.asgi import Receive, Scope
    from kosine.http.bodies.formats import Door
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
    UnknownField,
    UnknownId,
    UnknownIndex,
    UnknownMask,
    UnsupportedMediaType,
    VersionMismatch,
    ZeroVector,
)
_COS_REFUSALS = (*_REFUSALS, BadCursor, HeadTooLarge, TooManyRows, VersionGone)
_SCORE_REFUSALS = (*_REFUSALS, TooManyIds)
_ITEM_REFUSALS = (
    BodyTimeout,
    DeadlineExceeded,
    EngineFailed,
    IndexNotReady,
    InvalidValue,
    NotFinite,
    Overloaded,
    UnknownId,
    UnknownIndex,
    VersionMismatch,
)
_ITEM_AT = 4
"""Slashes of `/indexes/{name}/items/` before the id."""
_ANSWERS = {
    207: ResponseSpec(
        data_container=CosAnswers,
        description="`Prefer: handling=lenient`: some queries are refused, the others answered.",
        generate_examples=False,
    ),
    **problems(*_COS_REFUSALS),
}


def query_routes(endpoint: CosEndpoint, *, default_index: Callable[[], str | None]) -> list[HTTPRouteHandler]:
    """Everything that is answered by a search."""

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

    return [cos, cos_default, *_item_routes(endpoint)]


def _item_routes(endpoint: CosEndpoint) -> list[HTTPRouteHandler]:
    """`GET /indexes/{name}/items/{id}` and `POST /indexes/{name}/score`."""

    @get(
        "/indexes/{name:str}/items/{item:path}",
        operation_class=SearchOperation,
        operation_id="show_item",
        summary="The vector of a stored item",
        response_headers=ANSWER_HEADERS,
        responses=problems(*_ITEM_REFUSALS),
    )
    async def show_item(
        request: Request[Any, Any, Any], name: FromPath[str], item: FromPath[str]
    ) -> Response[Item]:
        door = item_door(_as_sent(item, request))
        return cast("Response[Item]", await _through(endpoint, name, request, door))

    @post(
        "/indexes/{name:str}/score",
        status_code=200,
        operation_class=ScoreOperation,
        operation_id="score_items",
        summary="Scores of given items against a query",
        response_headers=ANSWER_HEADERS,
        responses=problems(*_SCORE_REFUSALS),
    )
    async def score_items(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[ItemScores]:
        return cast("Response[ItemScores]", await _through(endpoint, name, request, score_door()))

    return [show_item, score_items]


def _as_sent(item: str, request: Request[Any, Any, Any]) -> str:
    """All that follows `/items/`: an id may have slashes, encoded or not, and the framework joins several."""
    raw = cast("Scope", request.scope).get("raw_path", b"").split(b"/", _ITEM_AT)
    return unquote_to_bytes(raw[-1]).decode("utf-8", "replace") if len(raw) == _ITEM_AT + 1 else item


async def _through(
    endpoint: CosEndpoint, name: str | None, request: Request[Any, Any, Any], door: Door = COS
) -> Response[CosAnswer | CosAnswers]:
    scope, receive = cast("Scope", request.scope), cast("Receive", request.receive)
    return cast("Response[CosAnswer | CosAnswers]", framed(await endpoint.answer(name, scope, receive, door)))


def framed(reply: Reply) -> Response[bytes]:
    """A finished reply as the framework's response."""
    headers = {name.decode("ascii"): value.decode("ascii") for name, value in reply.headers}
    return Response(
        reply.body,
        status_code=reply.status,
        media_type=headers.pop("content-type", "application/json"),
        headers=headers,
    )
