"""`kosine inspect`: what the loader would say of a source, before it is served.

Exit code 0: every source is good; 1: one is refused; 2: the command line is wrong.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from kosine.cli.reading import mask_option, reading_options
from kosine.cli.stores import store_options
from kosine.loading.inspection import inspect_source
from kosine.loading.storage.stores import Stores
from kosine.npy.header import shown
from kosine.source_uri import COMMAND_LINE
from kosine.units import human_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kosine.loading.inspection import Inspection, MemoryEstimate
    from kosine.loading.readings import Faults, Reading
    from kosine.settings import InvalidRows, Layout, Metric, StoresSettings

__all__ = ("inspect_command",)

_SHOW_PROGRESS_FROM = 256 * 2**20
"""Bytes; less is read in under a second."""


@click.command("inspect")
@click.argument("files", nargs=-1, required=True, metavar="SOURCE...")
@reading_options
@click.option("--ids", metavar="SOURCE", help="Item ids of the file, checked with it.")
@mask_option
@click.option(
    "--header-only",
    is_flag=True,
    help="Only what a load checks before it reads values: a few KiB, however large the file.",
)
@store_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object per source and line.")
def inspect_command(
    *,
    files: tuple[str, ...],
    layout: Layout | None,
    dim: int | None,
    metric: Metric,
    invalid_rows: InvalidRows,
    ids: str | None,
    masks: dict[str, str],
    header_only: bool,
    as_json: bool,
    stores: StoresSettings,
) -> None:
    """Check sources as the service would, and say how to serve them.

    A source is an .npy file, or a .json manifest, here or at s3://bucket/key or gs://bucket/key. Shape,
    dtype, norms, layout, memory; or all that is wrong. Exit code 1 if the service would refuse a source.
    """
    _check_beside(files, {"--ids": ids is not None, "--mask": bool(masks)})
    all_good = True
    with contextlib.closing(Stores(stores, policy=COMMAND_LINE)) as storage:
        for file in files:
            with _progress(file) as progress:
                found = inspect_source(
                    file,
                    storage=storage,
                    layout=layout,
                    dim=dim,
                    ids=ids,
                    masks=masks,
                    metric=metric,
                    invalid_rows=invalid_rows,
                    header_only=header_only,
                    progress=progress,
                )
            if as_json:
                click.echo(msgspec.json.encode(found))
            else:
                _print(found)
            all_good = all_good and found.good
    raise click.exceptions.Exit(0 if all_good else 1)


def _check_beside(files: tuple[str, ...], given: dict[str, bool]) -> None:
    """What stands beside a file of vectors."""
    for option in (option for option, is_given in given.items() if is_given):
        if len(files) > 1:
            raise click.UsageError(f"{option} belongs to one file, got {len(files)}; inspect them one by one")
        if files[0].endswith(".json"):
            raise click.UsageError(f"a manifest names its ids and masks; leave out {option}")


@contextlib.contextmanager
def _progress(file: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr for a big file; none where stderr is no terminal."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(escape(file), visible=False)
        yield lambda done, total: bar.update(
            task, completed=done, total=total, visible=total >= _SHOW_PROGRESS_FROM
        )


def _print(found: Inspection) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    title = Text(found.file, style="bold")
    good = "  header good, values not read" if found.header_only else "  good"
    console.print(title.append(good if found.good else "  refused", "green" if found.good else "red"))
    facts = list(_facts(found))
    if console.is_terminal:
        table = Table.grid(padding=(0, 2), pad_edge=True)
        for name, value in facts:
            table.add_row(Text(name, style="dim"), value)
        console.print(table)
    else:
        # A pipe has no width: one line a fact.
        width = max(len(name) for name, _ in facts)
        console.print("\n".join(f"  {name:<{width}}  {value}" for name, value in facts))
    if found.suggestion is not None:
        console.print("\n".join(f"    {line}" for line in found.suggestion.splitlines()))
    console.print()


def _facts(found: Inspection) -> Iterator[tuple[str, str]]:
    if found.manifest is not None:
        yield "vectors", found.manifest.vectors
    if found.shape is not None:
        shape = shown(tuple(found.shape))
        yield "file", f"npy {found.npy_version}, {found.dtype}, {found.order} order, shape {shape}"
    if found.layout is not None:
        yield "layout", f"{found.layout}: {found.rows} items of dim {found.dim}; {found.reason}"
    yield from _content(found)
    yield from _beside(found)
    if found.memory is not None:
        yield from _memory(found.memory)
    for refusal in found.refusals:
        yield refusal.code, refusal.detail
    if found.suggestion is not None:
        yield "serve", "with this in the configuration file:"


def _beside(found: Inspection) -> Iterator[tuple[str, str]]:
    """Ids and masks."""
    if found.ids is not None:
        yield "ids", f"{found.ids}, one for each item{'' if found.header_only else ', each once'}"
    if found.manifest is not None and found.manifest.ids is not None:
        yield "", found.manifest.ids
    for name, true in found.masks.items():
        told = "a bool for each row" if true is None else f"true for {true} of {found.rows} rows"
        yield "mask", f"{name}, {told}"
        if found.manifest is not None:
            yield "", found.manifest.masks[name]


def _content(found: Inspection) -> Iterator[tuple[str, str]]:
    for reading in found.readings:
        yield from _reading(reading)
    if found.dropped is not None:
        yield "dropped", f"{found.dropped} of {found.rows} rows are left out"


def _memory(memory: MemoryEstimate) -> Iterator[tuple[str, str]]:
    matrix, rounded, scratch, load, reload = map(
        human_size,
        (memory.matrix, memory.rounded, memory.scratch, memory.load_peak, memory.reload_peak),
    )
    yield "memory", f"{matrix} matrix, {scratch} for a batch of 128"
    if memory.rounded:
        yield "", f"{rounded} for a copy in bfloat16, on CPUs that multiply it; service.screening=never: none"
    yield "", f"{load} to load, {reload} to reload while serving"


def _reading(reading: Reading) -> Iterator[tuple[str, str]]:
    if reading.norms is None:
        norms = "none is finite"
    else:
        norms = f"{reading.norms.low:.4g} to {reading.norms.high:.4g}, median {reading.norms.median:.4g}"
    yield "norms", f"as {reading.layout}: {norms}{' (unit vectors)' if reading.unit else ''}"
    for name, faults in (("not finite", reading.not_finite), ("zero", reading.zero)):
        if faults.count:
            yield "", f"{faults.count} of {reading.rows} {name}: {_listed(faults)}"


def _listed(faults: Faults) -> str:
    return ", ".join(map(str, faults.first)) + (", ..." if faults.count > len(faults.first) else "")
