"""Which version of an index serves, when that is not for its source to say: go back, hold, follow again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from litestar import Request, delete, post
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema
from litestar.params import FromPath  # noqa: TC002  Litestar reads the annotations
from msgspec import UNSET, Struct, UnsetType

from kosine.errors import (
    BadEncoding,
    BadJson,
    BodyTimeout,
    BodyTooLarge,
    InvalidValue,
    JsonTooDeep,
    ReloadFailed,
    UnknownField,
    UnknownIndex,
    UnknownVersion,
    VersionGone,
)
from kosine.http.body import read_body
from kosine.http.openapi import REQUEST_ID_HEADER, problems
from kosine.http.wire import checked_name, decode_as

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler

    from kosine.http.asgi import Receive
    from kosine.serving.registry import Registry
    from kosine.serving.status import ReloadOutcome
    from kosine.settings import ServiceSettings

__all__ = ("HeldResult", "Orders", "version_routes")

_REFUSALS = (
    BadEncoding,
    BadJson,
    BodyTimeout,
    BodyTooLarge,
    InvalidValue,
    JsonTooDeep,
    ReloadFailed,
    UnknownField,
    UnknownIndex,
    UnknownVersion,
    VersionGone,
)


class Orders(Protocol):
    """Who decides which version serves."""

    async def order(
        self, name: str, command: Literal["rollback", "pin", "unpin"], version: str | None = None
    ) -> ReloadOutcome:
        """Carry it out and tell which version serves.

        Raises UnknownIndex, UnknownVersion, VersionGone, ReloadFailed or ShuttingDown.
        """


class HeldResult(Struct, kw_only=True):
    """The version that serves now, whether it was loaded for that, and whether the index is held at it."""

    outcome: Literal["published", "unchanged"]
    version: str | None
    pinned: bool


class _Wanted(Struct, forbid_unknown_fields=True):
    version: str | UnsetType = UNSET


@dataclass
class _WantedOperation(Operation):
    """Adds the body, which may be left out."""

    def __post_init__(self) -> None:
        wanted = Schema(
            type=OpenAPIType.OBJECT,
            additional_properties=False,
            properties={
                "version": Schema(
                    type=OpenAPIType.STRING,
                    description="A version in `history` of `GET /indexes/{name}`, or its whole digest. "
                    "Default: of a rollback the one before, of a pin the one that serves.",
                )
            },
        )
        content = {"application/json": OpenAPIMediaType(schema=wanted)}
        self.request_body = RequestBody(content=content, required=False)


def version_routes(
    *, registry: Registry, orders: Orders, settings: ServiceSettings
) -> list[HTTPRouteHandler]:
    """`POST /indexes/{name}/rollback`, `POST` and `DELETE /indexes/{name}/pin`."""

    async def carried_out(
        request: Request[Any, Any, Any], name: str, command: Literal["rollback", "pin"]
    ) -> HeldResult:
        name = checked_name(name)
        receive = cast("Receive", request.receive)
        seconds = float(settings.body_timeout)
        body = await read_body(receive, limit=int(settings.body_limit), seconds=seconds)
        return result(name, await orders.order(name, command, _version(body)))

    def result(name: str, outcome: ReloadOutcome) -> HeldResult:
        return HeldResult(
            outcome="published" if outcome.outcome == "published" else "unchanged",
            version=outcome.version,
            pinned=name in registry and registry.load_status(name).pin is not None,
        )

    @post(
        "/indexes/{name:str}/rollback",
        status_code=200,
        operation_class=_WantedOperation,
        operation_id="rollback_index",
        summary="Serve an earlier version again, whatever the source holds, until the index is unpinned",
        response_headers=[REQUEST_ID_HEADER],
        responses=problems(*_REFUSALS),
    )
    async def rollback_index(request: Request[Any, Any, Any], name: FromPath[str]) -> HeldResult:
        return await carried_out(request, name, "rollback")

    @post(
        "/indexes/{name:str}/pin",
        status_code=200,
        operation_class=_WantedOperation,
        operation_id="pin_index",
        summary="Serve this version, whatever the source holds, until the index is unpinned",
        response_headers=[REQUEST_ID_HEADER],
        responses=problems(*_REFUSALS),
    )
    async def pin_index(request: Request[Any, Any, Any], name: FromPath[str]) -> HeldResult:
        return await carried_out(request, name, "pin")

    @delete(
        "/indexes/{name:str}/pin",
        status_code=200,
        operation_id="unpin_index",
        summary="Follow the source again",
        response_headers=[REQUEST_ID_HEADER],
        responses=problems(UnknownIndex),
    )
    async def unpin_index(name: FromPath[str]) -> HeldResult:
        name = checked_name(name)
        return result(name, await orders.order(name, "unpin"))

    return [rollback_index, pin_index, unpin_index]


def _version(body: bytes) -> str | None:
    wanted = decode_as(_Wanted, body) if body.strip() else _Wanted()
    return None if wanted.version is UNSET else wanted.version
