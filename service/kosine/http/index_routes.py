"""What there is and in which state, and a reload on request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from litestar import get, post
from litestar.params import FromPath  # noqa: TC002  Litestar reads the annotations

from kosine.errors import IndexPinned, ReloadFailed, UnknownIndex
from kosine.http.index_status import IndexList, IndexStatus, ReloadResult, index_status
from kosine.http.openapi import REQUEST_ID_HEADER, problems
from kosine.http.version_routes import Orders
from kosine.http.wire import checked_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar.handlers import HTTPRouteHandler

    from kosine.serving.registry import Registry
    from kosine.serving.status import ReloadOutcome

__all__ = ("Reloads", "index_routes")


class Reloads(Orders, Protocol):
    """Who can also be asked to look at a source now."""

    async def force(self, name: str) -> ReloadOutcome:
        """Reload `name` and tell how it ended. Raises UnknownIndex or IndexPinned."""


def index_routes(
    *, registry: Registry, reloads: Reloads, default_index: Callable[[], str | None]
) -> list[HTTPRouteHandler]:
    """`GET /indexes`, `GET /indexes/{name}` and `POST /indexes/{name}/reload`."""

    @get(
        "/indexes",
        operation_id="list_indexes",
        summary="Every index and its state",
        response_headers=[REQUEST_ID_HEADER],
        responses=problems(),
    )
    async def list_indexes() -> IndexList:
        statuses = [index_status(registry, name) for name in registry.names()]
        return IndexList(indexes=statuses, default_index=default_index())

    @get(
        "/indexes/{name:str}",
        operation_id="show_index",
        summary="One index",
        response_headers=[REQUEST_ID_HEADER],
        responses=problems(UnknownIndex),
    )
    async def show_index(name: FromPath[str]) -> IndexStatus:
        return index_status(registry, checked_name(name))

    @post(
        "/indexes/{name:str}/reload",
        status_code=200,
        operation_id="reload_index",
        summary="Look at the source now, load it if it changed, and tell how that ended",
        response_headers=[REQUEST_ID_HEADER],
        responses=problems(UnknownIndex, IndexPinned, ReloadFailed),
    )
    async def reload_index(name: FromPath[str]) -> ReloadResult:
        return _result(await reloads.force(checked_name(name)))

    return [list_indexes, show_index, reload_index]


def _result(outcome: ReloadOutcome) -> ReloadResult:
    if outcome.outcome != "failed":
        return ReloadResult(outcome=outcome.outcome, version=outcome.version)
    failure = outcome.error
    if failure is None:
        raise ReloadFailed("the reload failed; GET /indexes/{name} tells more", version=outcome.version)
    raise ReloadFailed(
        failure.detail,
        reason=failure.code.value,
        stage=failure.stage.value,
        consecutive=failure.consecutive,
        version=outcome.version,
    )
