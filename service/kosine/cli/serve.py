"""`kosine serve`: settings from a file, from options, or from both."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

import kosine
from kosine import configuration, logs
from kosine.settings import Device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kosine.settings import Settings

__all__ = ("serve_command",)

_EXAMPLES = """\b
Examples:
  kosine serve --index items=./items.npy
  kosine serve --config kosine.yaml"""


@click.command("serve", epilog=_EXAMPLES)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Configuration file (YAML); followed while the service runs.",
)
@click.option(
    "--index", "indexes", multiple=True, metavar="NAME=URI", help="Serve this .npy file under that name."
)
@click.option(
    "--set",
    "edits",
    multiple=True,
    metavar="PATH=VALUE",
    help="Any setting, as indexes.items.layout=columns or defaults.k=20; stronger than the file.",
)
@click.option("--host", metavar="ADDRESS", help="Same as --set service.host=ADDRESS.  [default: 127.0.0.1]")
@click.option("--port", metavar="PORT", help="Same as --set service.port=PORT.  [default: 8080]")
@click.option("--device", type=click.Choice(get_args(Device)), help="Same as --set service.device=...")
@click.option(
    "--log-format",
    type=click.Choice(get_args(logs.LogFormat)),
    default="auto",
    show_default=True,
    help="auto: for people on a terminal, JSON otherwise.",
)
@click.option(
    "--log-level",
    type=click.Choice(get_args(logs.LogLevel)),
    default="info",
    show_default=True,
    help="Least level to log.",
)
@click.option("--check", is_flag=True, help="Print the effective configuration and exit: 0 good, 2 not.")
def serve_command(
    *,
    config_path: Path | None,
    indexes: Sequence[str],
    edits: Sequence[str],
    host: str | None,
    port: str | None,
    device: str | None,
    log_format: logs.LogFormat,
    log_level: logs.LogLevel,
    check: bool,
) -> None:
    """Serve .npy files until SIGTERM or Ctrl-C."""
    overrides = [
        *configuration.index_overrides(indexes),
        *edits,
        *_as_edits({"host": host, "port": port, "device": device}),
    ]
    load = partial(configuration.load, config_path, overrides=overrides)
    settings = load()
    if check:
        click.echo(configuration.dump(settings), nl=False)
        return
    _refuse_nothing(settings, config_path)
    logs.configure(form=log_format, level=log_level)
    import structlog

    # Said before TensorFlow is imported, which takes seconds.
    structlog.get_logger("kosine").info(
        "starting", version=kosine.__version__, indexes=list(settings.indexes)
    )
    from kosine import app

    app.serve(settings, config_path=config_path, load_settings=load, started=lambda _url: None)


def _as_edits(options: dict[str, str | None]) -> list[str]:
    # A port is text here so that a bad one gets the same message as in a file.
    return [
        f"service.{name}={value if name == 'port' else json.dumps(value)}"
        for name, value in options.items()
        if value is not None
    ]


def _refuse_nothing(settings: Settings, config_path: Path | None) -> None:
    if config_path is None and not settings.indexes:
        raise click.UsageError(
            "nothing to serve: name an .npy file, as in `kosine serve --index items=./items.npy`, "
            "or a configuration file with --config"
        )
