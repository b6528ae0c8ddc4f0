"""Options of commands that reach object stores: where they are, as the service would be told."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import replace

from kosine import configuration
from kosine.settings import StoresSettings

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("store_options",)


def store_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add `--config`, `--endpoint-url` and `--region`; `command` gets what they say as `stores`."""

    @click.option(
        "--config",
        "config_path",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Configuration file of the service, for its service.stores: where object stores are.",
    )
    @click.option(
        "--endpoint-url",
        metavar="URL",
        help="Of the object store; default: that of FILE, else Amazon's or Google's.",
    )
    @click.option(
        "--region", metavar="REGION", help="Of an S3 bucket; default: that of FILE, else the environment's."
    )
    @functools.wraps(command)
    def with_stores(
        *, config_path: Path | None, endpoint_url: str | None, region: str | None, **options: Any
    ) -> None:
        command(**options, stores=_settings(config_path, endpoint_url, region))

    return with_stores


def _settings(config_path: Path | None, endpoint_url: str | None, region: str | None) -> StoresSettings:
    stores = configuration.load(config_path).service.stores if config_path is not None else StoresSettings()
    s3, gcs = stores.s3, stores.gcs
    if endpoint_url is not None:
        s3, gcs = replace(s3, endpoint_url=endpoint_url), replace(gcs, endpoint_url=endpoint_url)
    if region is not None:
        s3 = replace(s3, region=region)
    return replace(stores, s3=s3, gcs=gcs)
