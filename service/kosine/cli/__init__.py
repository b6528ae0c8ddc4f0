"""The `kosine` command. Each subcommand is imported when it is asked for: `--help` needs no TensorFlow.

What a person got wrong is one message on stderr and exit code 2, never a traceback.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import click

import kosine
from kosine.engines.cpus import blas_environment
from kosine.errors import ConfigurationError, StartupError

__all__ = ("main",)

_COMMANDS = {
    "bench": "bench_command",
    "demo": "demo_command",
    "inspect": "inspect_command",
    "publish": "publish_command",
    "query": "query_command",
    "serve": "serve_command",
}
_INTERRUPTED = 130
"""As shells report a command that Ctrl-C ended; a service that is up takes SIGINT itself and exits 0."""


class _Refusal(click.ClickException):
    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"kosine: {self.format_message()}", file=file, err=file is None)


class _LazyGroup(click.Group):
    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"kosine.cli.{cmd_name}"), _COMMANDS[cmd_name])
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ConfigurationError, StartupError) as error:
            raise _Refusal(error.detail) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(_INTERRUPTED) from None


@click.group(
    cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(kosine.__version__, prog_name="kosine", message="%(prog)s %(version)s")
def main() -> None:
    """Exact cosine top-k over HTTP from .npy files.

    Queries that come together are answered together; a file that changes is swapped in meanwhile.
    """
    for name, value in blas_environment().items():
        os.environ.setdefault(name, value)
