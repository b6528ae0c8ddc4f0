"""Options of commands that read files as a load would: what the configuration of their index says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar, get_args

import click

from kosine.loading.layout import MAX_DIM
from kosine.settings import MASK_NAME_PATTERN, MAX_MASKS, InvalidRows, Layout, Metric

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("mask_option", "reading_options")

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


def mask_option(command: C) -> C:
    """Add `--mask NAME=FILE`, repeatable; the command gets a dict."""
    option = click.option(
        "--mask",
        "masks",
        multiple=True,
        metavar="NAME=FILE",
        callback=_named,
        help="A mask of the items, by the name that queries give it; repeatable.",
    )
    return option(command)


def _named(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    for name, _, file in pairs:
        if re.fullmatch(MASK_NAME_PATTERN, name) is None or not file:
            raise click.BadParameter(
                "expected NAME=FILE, with a name of 1 to 63 of a-z, 0-9, and inner hyphens or underscores"
            )
    named = {name: file for name, _, file in pairs}
    if len(named) < len(pairs) or len(named) > MAX_MASKS:
        raise click.BadParameter(f"expected each name once, and at most {MAX_MASKS}")
    return named
