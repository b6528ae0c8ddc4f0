"""`kosine query`: what a running service answers, as a table or as JSON.

Exit code 0: answered; 1: the service refused it or cannot be reached; 2: the command line is wrong.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, cast

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
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kosine.client import Client, Matches, SearchOptions

__all__ = ("query_command",)

_HIGHEST_DIMS = 2
_NUMBER = re.compile(r"-?[0-9]{1,18}")

_EXAMPLES = """\b
Examples:
  kosine query items --id 5
  kosine query items --id sku-9 --exclude sku-10 --exclude sku-11 --k 3
  kosine query items --id sku-9 --mask in_stock
  kosine query items --id sku-9 --all --k 1000 --min-score 0.5 --json
  kosine query items --vector query.npy
  kosine query items --vector queries.npy --json
  kosine query --url https://search.example --vector query.npy"""


@click.command("query", epilog=_EXAMPLES)
@click.argument("name", required=False)
@click.option(
    "--id", "items", multiple=True, metavar="ID", help="Ask with this item of the index; repeatable."
)
@click.option(
    "--vector",
    "file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE.npy",
    help="Ask with this vector (d,), or with each row of (n, d).",
)
@click.option("--k", type=click.IntRange(1), help="How many items; default: that of the index.")
@click.option("--exclude", multiple=True, metavar="ID", help="Leave this item out; repeatable.")
@click.option(
    "--include", multiple=True, metavar="ID", help="Only this item, and others so named; repeatable."
)
@click.option("--mask", metavar="NAME", help="Only items for which this mask of the index is true.")
@click.option("--not-mask", metavar="NAME", help="Only items for which it is false.")
@click.option("--min-score", type=float, help="Leave out what is less similar.")
@click.option("--all", "paged", is_flag=True, help="All that can be found, --k at a time.")
@click.option("--text-ids", is_flag=True, help="IDs are text, also those that look like numbers.")
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
@click.option("--json", "as_json", is_flag=True, help="One JSON object per query, or page, and line.")
def query_command(
    *,
    name: str | None,
    items: tuple[str, ...],
    file: Path | None,
    k: int | None,
    exclude: tuple[str, ...],
    include: tuple[str, ...],
    mask: str | None,
    not_mask: str | None,
    min_score: float | None,
    paged: bool,
    text_ids: bool,
    url: str,
    timeout: float,
    as_json: bool,
) -> None:
    """Ask a running service for the items most similar to an item of it, or to a vector.

    NAME is an index; without it the service's default index answers. Exit code 1 if there is no answer.
    """
    if bool(items) == (file is not None):
        raise click.UsageError("expected --id or --vector, and not both")
    said = {
        "index": name,
        "k": k,
        "exclude": _ids(exclude, as_text=text_ids) or None,
        "include": _ids(include, as_text=text_ids) or None,
        "mask": mask,
        "not_mask": not_mask,
        "min_score": min_score,
    }
    options = cast("SearchOptions", {name: value for name, value in said.items() if value is not None})
    queries = _ids(items, as_text=text_ids) if file is None else _rows(file)
    if paged and len(queries) != 1:
        raise click.UsageError(f"expected one query with --all, got {len(queries)}")
    with _client(url, timeout) as client, _refusals_told():
        first = 1
        for title, matches in _answers(client, queries, options, paged=paged):
            if as_json:
                click.echo(_json(matches))
            else:
                _print(matches, title=title if len(queries) > 1 else None, first=first)
            first += len(matches) if paged else 0


def _answers(
    client: Client,
    queries: list[int] | list[str] | NDArray[np.float32],
    options: SearchOptions,
    *,
    paged: bool,
) -> Iterator[tuple[str, Matches]]:
    """Each with what it answers; of pages of one query, as they come."""
    if isinstance(queries, np.ndarray):
        titles = [f"row {position}" for position in range(len(queries))]
        found = client.pages(queries[0], **options) if paged else client.search_many(queries, **options)
    else:
        titles = [str(item) for item in queries]
        found = client.pages_id(queries[0], **options) if paged else client.search_ids(queries, **options)
    return zip(cycle(titles), found, strict=False)


@contextmanager
def _refusals_told() -> Iterator[None]:
    try:
        yield
    except RequestError as error:
        raise click.ClickException(f"{error.code}: {error.detail}") from error
    except KosineError as error:
        raise click.ClickException(error.detail) from error


def _ids(texts: tuple[str, ...], *, as_text: bool) -> list[int] | list[str]:
    """Numbers where all look like that: an index has ids of one type."""
    numbers = [int(text) for text in texts if _NUMBER.fullmatch(text)]
    return numbers if len(numbers) == len(texts) and not as_text else [*texts]


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


def _print(found: Matches, *, title: str | None, first: int) -> None:
    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", caption_justify="left")
    table.caption = f"version {found.version}"
    table.add_column("", justify="right", style="dim")
    table.add_column("id", justify="right" if found.ids.dtype.kind == "i" else "left")
    table.add_column("score", justify="right")
    for place, (item, score) in enumerate(found, start=first):
        table.add_row(str(place), Text(str(item)), f"{score:.6f}")
    console.print(table)
