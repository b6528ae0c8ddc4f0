"""`kosine query`: what a running service answers, as a table or as JSON.

Exit code 0: answered; 1: the service refused it or cannot be reached; 2: the command line is wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kosine.cli.durations import DurationWithin
from kosine.errors import KosineError, LoadError, RequestError, StartupError
from kosine.npy.content import array_of
from kosine.npy.header import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kosine.client import Client, Matches, SearchOptions

__all__ = ("query_command",)

_HIGHEST_DIMS = 2

_EXAMPLES = """\b
Examples:
  kosine query items --vector query.npy
  kosine query items --vector queries.npy --k 3 --json
  kosine query --url https://search.example --vector query.npy"""


@click.command("query", epilog=_EXAMPLES)
@click.argument("name", required=False)
@click.option(
    "--vector",
    "file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    metavar="FILE.npy",
    help="Ask with this vector (d,), or with each row of (n, d).",
)
@click.option("--k", type=click.IntRange(1), help="How many items; default: that of the index.")
@click.option(
    "--url",
    default="http://127.0.0.1:8080",
    envvar="KOSINE_URL",
    show_default=True,
    show_envvar=True,
    help="Where the service is.",
)
@click.option(
    "--timeout",
    type=DurationWithin("1ms", "10m"),
    default="5s",
    show_default=True,
    metavar="TIME",
    help="For each answer, attempts included.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per query and line.")
def query_command(
    *, name: str | None, file: Path, k: int | None, url: str, timeout: float, as_json: bool
) -> None:
    """Ask a running service for the items most similar to a vector.

    NAME is an index; without it the service's default index answers. Exit code 1 if there is no answer.
    """
    queries, asking = _rows(file), _client(url, timeout)
    options: SearchOptions = {}
    if name is not None:
        options["index"] = name
    if k is not None:
        options["k"] = k
    try:
        with asking as client:
            for position, found in enumerate(client.search_many(queries, **options)):
                if as_json:
                    click.echo(_json(found))
                else:
                    _print(found, title=f"row {position}" if len(queries) > 1 else None)
    except RequestError as error:
        raise click.ClickException(f"{error.code}: {error.detail}") from error
    except KosineError as error:
        raise click.ClickException(error.detail) from error


def _client(url: str, timeout: float) -> Client:
    try:
        from kosine.client import Client
    except ModuleNotFoundError as error:
        raise StartupError(f"{error.name} is not installed; run: pip install 'kosine[client]'") from error
    try:
        return Client(url, timeout=timeout)
    except ValueError as error:
        raise StartupError(f"--url: {error}") from error


def _rows(file: Path) -> NDArray[np.float32]:
    try:
        queries = array_of(file.read_bytes())
    except LoadError as error:
        raise StartupError(f"--vector {file}: {error.detail}") from error
    except OSError as error:
        raise StartupError(f"--vector {file}: {error.strerror}") from error
    if not 1 <= queries.ndim <= _HIGHEST_DIMS:
        raise StartupError(f"--vector {file}: expected shape (d,) or (n, d), got {shown(queries.shape)}")
    return np.atleast_2d(queries).astype(np.float32)


def _json(found: Matches) -> bytes:
    return msgspec.json.encode({"result": list(found), "version": found.version})


def _print(found: Matches, *, title: str | None) -> None:
    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", caption_justify="left")
    table.caption = f"version {found.version}"
    table.add_column("", justify="right", style="dim")
    table.add_column("id", justify="right" if found.ids.dtype.kind == "i" else "left")
    table.add_column("score", justify="right")
    for place, (item, score) in enumerate(found, start=1):
        table.add_row(str(place), Text(str(item)), f"{score:.6f}")
    console.print(table)
