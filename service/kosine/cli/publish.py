"""`kosine publish`: checked files to where kosine serves them from, vectors, ids and masks as one unit."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, NoReturn

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from kosine.cli.reading import mask_option, reading_options
from kosine.cli.stores import store_options
from kosine.errors import LoadError
from kosine.loading.inspection import Inspection
from kosine.publishing.publication import Publication, Step, prepare, publish
from kosine.publishing.target import PublishConflict
from kosine.publishing.targets import open_target
from kosine.settings import INDEX_NAME_PATTERN, InvalidRows, Layout, Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kosine.publishing.target import Target
    from kosine.settings import StoresSettings

__all__ = ("publish_command",)

_SHOW_PROGRESS_FROM = 256 * 2**20
"""Bytes; less is done in seconds."""
_WOULD = {"wrote": "would write", "repaired": "would repair", "kept": "would keep"}

_EXAMPLES = """\b
Examples:
  kosine publish items.npy --ids ids.npy /srv/kosine
  kosine publish items.npy /srv/kosine --keep 3
  kosine publish items.npy --ids ids.npy s3://bucket/prefix/
  kosine publish items.npy --mask in_stock=in_stock.npy /srv/kosine
  kosine publish items.npy gs://bucket/prefix/ --keep 3"""


@click.command("publish", epilog=_EXAMPLES)
@click.argument("vectors", metavar="VECTORS.npy")
@click.argument("target", metavar="TARGET")
@click.option("--ids", metavar="FILE", help="Item ids; swapped together with the vectors.")
@mask_option
@click.option("--name", metavar="NAME", help="Of the manifest NAME.json; default: that of the vectors.")
@reading_options
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    help="Keep N versions under this name, this one and the newest, and what any other manifest there "
    "names; default: keep all.",
)
@store_options
@click.option("--dry-run", is_flag=True, help="Check, and say what would be written.")
def publish_command(
    *,
    vectors: str,
    target: str,
    ids: str | None,
    masks: dict[str, str],
    name: str | None,
    layout: Layout | None,
    dim: int | None,
    metric: Metric,
    invalid_rows: InvalidRows,
    keep: int | None,
    dry_run: bool,
    stores: StoresSettings,
) -> None:
    """Publish vectors, ids and masks to where kosine serves them from.

    TARGET is a folder, s3://bucket/prefix/ or gs://bucket/prefix/.

    Checks the files as the service would, writes each under a name made of its content, and the manifest
    last: what is served changes at once and as a whole, or not at all. Exit code 1 if a file is refused or
    another publisher was faster; then what was served is served on.
    """
    name = _name(vectors, name)
    with open_target(target, stores) as place:
        with _refusals(), _progress(vectors) as progress:
            prepared = prepare(
                vectors,
                ids=ids,
                masks=masks,
                name=name,
                layout=layout,
                dim=dim,
                metric=metric,
                invalid_rows=invalid_rows,
                progress=progress,
            )
            if isinstance(prepared, Inspection):
                _refuse(prepared)
            for step in publish(prepared, place, keep=keep, dry_run=dry_run, progress=progress):
                _say(step, dry_run=dry_run)
        click.echo("serve it with this in the configuration file:")
        click.echo(_configuration(prepared, place, metric, invalid_rows))


@contextmanager
def _refusals() -> Iterator[None]:
    """Exit code 1 with one message."""
    try:
        yield
    except LoadError as error:
        raise click.ClickException(f"{error.code.value}: {error.detail}") from None
    except PublishConflict as error:
        raise click.ClickException(error.detail) from None


def _name(vectors: str, name: str | None) -> str:
    if name is None:
        return re.sub(r"[^a-z0-9]+", "-", PurePath(vectors).stem.lower())[:63].strip("-") or "items"
    if re.fullmatch(INDEX_NAME_PATTERN, name) is None:
        raise click.UsageError(f"--name: expected 1 to 63 of a-z, 0-9 and inner hyphens, got {name[:80]!r}")
    return name


@contextmanager
def _progress(file: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr for big files; none where stderr is no terminal."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(escape(file), visible=False)

        def show(doing: str, done: int, total: int) -> None:
            visible = total >= _SHOW_PROGRESS_FROM
            bar.update(task, description=doing, completed=done, total=total, visible=visible)

        yield show


def _refuse(found: Inspection) -> NoReturn:
    for refusal in found.refusals:
        click.echo(f"{refusal.code}: {refusal.detail}", err=True)
    click.echo(f"{found.file} is refused; nothing was written. `kosine inspect` says more", err=True)
    raise click.exceptions.Exit(1)


def _say(step: Step, *, dry_run: bool) -> None:
    did = _WOULD.get(step.did, step.did) if dry_run else step.did
    size = f"  {step.size} bytes" if step.size is not None else ""
    click.echo(f"{did:<{12 if dry_run else 8}}  {step.file}{size}")


def _configuration(
    publication: Publication, target: Target, metric: Metric, invalid_rows: InvalidRows
) -> str:
    """YAML of the index; a JSON string is a YAML string whatever the path holds."""
    uri = target.uri(f"{publication.name}.json").encode(errors="replace").decode()
    lines = [f"uri: {json.dumps(uri, ensure_ascii=False)}"]
    if publication.layout != "rows":
        lines.append(f"layout: {publication.layout}")
    if publication.layout == "transposed":
        lines.append(f"dim: {publication.dim}")
    if metric != "cosine":
        lines.append(f"metric: {metric}")
    if invalid_rows != "refuse":
        lines.append(f"invalid_rows: {invalid_rows}")
    return "\n".join(["indexes:", f"  {publication.name}:", *(f"    {line}" for line in lines)])
