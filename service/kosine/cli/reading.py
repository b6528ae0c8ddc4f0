"""Options of commands that read a file as a load would: what the configuration of its index says."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, get_args

import click

from kosine.loading.layout import MAX_DIM
from kosine.settings import InvalidRows, Layout, Metric

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("reading_options",)

C = TypeVar("C", bound="Callable[..., None]")


def reading_options(command: C) -> C:
    """Add `--layout`, `--dim`, `--metric` and `--invalid-rows`."""
    options = (
        click.option(
            "--layout",
            type=click.Choice(get_args(Layout)),
            help="How items lie in the file; guessed where it is not given.",
        ),
        click.option("--dim", type=click.IntRange(1, MAX_DIM), help="Dimension; a flat file needs it."),
        click.option("--metric", type=click.Choice(get_args(Metric)), default="cosine", show_default=True),
        click.option(
            "--invalid-rows",
            type=click.Choice(get_args(InvalidRows)),
            default="refuse",
            show_default=True,
            help="What becomes of rows with NaN or infinity, or (cosine) of zeros.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
