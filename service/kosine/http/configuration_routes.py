"""Which configuration is in force, for whoever wrote it and waits for it to arrive."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  msgspec reads the annotations
from typing import TYPE_CHECKING

from litestar import get
from msgspec import Struct

from kosine.http.openapi import REQUEST_ID_HEADER, problems

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar.handlers import HTTPRouteHandler

    from kosine.serving.status import ConfigurationStatus

__all__ = ("ConfigurationInForce", "Refusal", "configuration_routes")


class Refusal(Struct):
    """The file as it is now, where it is not in force."""

    hash: str | None
    """SHA-256 (hex) of the file; null where it cannot be read."""
    detail: str
    at: datetime


class ConfigurationInForce(Struct):
    """Everything is null or empty where the service was started without a file."""

    hash: str | None
    """SHA-256 (hex) of the file whose content is in force."""
    applied_at: datetime | None
    restart_needed: list[str]
    """Settings of `service` in the file that wait for a restart."""
    refused: Refusal | None


def configuration_routes(status: Callable[[], ConfigurationStatus]) -> list[HTTPRouteHandler]:
    """`GET /configuration`."""

    @get(
        "/configuration",
        operation_id="show_configuration",
        summary="Which content of the configuration file is in force",
        response_headers=[REQUEST_ID_HEADER],
        responses=problems(),
    )
    async def show_configuration() -> ConfigurationInForce:
        return _shown(status())

    return [show_configuration]


def _shown(status: ConfigurationStatus) -> ConfigurationInForce:
    refused = status.refused
    return ConfigurationInForce(
        hash=status.hash,
        applied_at=status.applied_at,
        restart_needed=list(status.restart_needed),
        refused=None if refused is None else Refusal(hash=refused.hash, detail=refused.detail, at=refused.at),
    )
