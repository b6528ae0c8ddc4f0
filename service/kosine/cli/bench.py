"""`kosine bench`: a service under load, and whether its answers are exact.

Exit code 0: every request was answered, exactly where that was checked; 1: not so; 2: it could not be run.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

import click
import msgspec
from rich.console import Console
from rich.text import Text

from kosine.bench.bodies import BodyFormat
from kosine.bench.filters import FilterPlan
from kosine.bench.plan import BenchPlan, GeneratorChoice, filtered_loads, plan_indexes, plan_loads
from kosine.bench.plot import check_plot, draw
from kosine.bench.run import run_bench
from kosine.bench.tables import render
from kosine.cli.durations import DurationWithin

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from kosine.bench.load_job import Progress
    from kosine.bench.plan import Load
    from kosine.bench.report import BenchReport

__all__ = ("bench_command",)

_WIDE = 160
"""Columns where the output is no terminal."""
_TERMINATED = 128 + signal.SIGTERM

_EXAMPLES = """\b
Examples:
  kosine bench
  kosine bench --file items.npy --rate 500 --rate 1000 --duration 30s
  kosine bench --url http://127.0.0.1:8080 --file items.npy -c 64
  kosine bench --reload-every 2s -c 16 --plot reloads.png
  kosine bench -c 64 --exclude 100 --rounds 5"""


@click.command("bench", epilog=_EXAMPLES)
@click.option("--url", metavar="URL", help="Measure this running service; without it one is started.")
@click.option(
    "--index",
    "indexes",
    multiple=True,
    metavar="NAME[=WEIGHT]",
    help="Ask this index; several are mixed by weight.  [default: items]",
)
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="[NAME=]FILE",
    help="The .npy of an index, (N, d) rows: what to serve, and what answers are checked against.",
)
@click.option(
    "--rows",
    type=click.IntRange(1, 2**31 - 1),
    default=100_000,
    show_default=True,
    help="Rows of a generated file.",
)
@click.option("--dim", type=click.IntRange(1, 65_536), default=100, show_default=True, help="Its dimension.")
@click.option(
    "--k", type=click.IntRange(1, 16_384), default=10, show_default=True, help="Results of each query."
)
@click.option(
    "-c",
    "--concurrency",
    multiple=True,
    type=click.IntRange(1, 65_536),
    help="Closed loop of so many callers; repeatable.  [default: 1, 16, 64, 256]",
)
@click.option(
    "--rate",
    "rates",
    multiple=True,
    type=click.FloatRange(0, 1_000_000, min_open=True),
    help="Open loop: so many requests per second, Poisson arrivals; repeatable.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, 65_536),
    default=256,
    show_default=True,
    help="Connections of an open loop.",
)
@click.option(
    "--duration",
    type=DurationWithin("100ms", "1d"),
    metavar="TIME",
    help="Of each load.  [default: 3s; with reloads 8 times their interval]",
)
@click.option(
    "--warm-up",
    type=DurationWithin("0s", "10m"),
    default="500ms",
    show_default=True,
    metavar="TIME",
    help="The same load before each, not measured.",
)
@click.option(
    "--timeout",
    type=DurationWithin("10ms", "10m"),
    default="10s",
    show_default=True,
    metavar="TIME",
    help="A request that takes longer has failed.",
)
@click.option(
    "--body",
    type=click.Choice(get_args(BodyFormat)),
    default="json",
    show_default=True,
    help="How each query is written: JSON, base64 in JSON, raw float32, or an .npy.",
)
@click.option(
    "--queries",
    type=click.IntRange(1, 100_000),
    default=2000,
    show_default=True,
    help="Distinct queries of each index.",
)
@click.option(
    "--exclude",
    type=click.IntRange(0, 10_000),
    default=0,
    metavar="N",
    help="Filter: each query excludes N rows of its own.",
)
@click.option("--mask", metavar="NAME", help="Filter: only items for which this mask of the index is true.")
@click.option("--not-mask", metavar="NAME", help="Filter: only items for which it is false.")
@click.option(
    "--mask-file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The .npy of that mask, N bools: what to serve, and what answers are checked against.",
)
@click.option(
    "--mask-share",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Of the rows, true in a mask that is made.  [default: 0.5]",
)
@click.option(
    "--rounds",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Run each load N times without and N times with the filter, in turn, and compare.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option(
    "--reload-every",
    type=DurationWithin("50ms", "1d"),
    metavar="TIME",
    help="Replace the file of the first index so often, in every other window of the load.",
)
@click.option(
    "--allow-rewrite", is_flag=True, help="With --url: let --reload-every replace FILE for a while."
)
@click.option(
    "--generator",
    type=click.Choice(get_args(GeneratorChoice)),
    default="auto",
    show_default=True,
    help="auto: own; a closed loop that it is too slow for is repeated by wrk, if installed.",
)
@click.option(
    "--set",
    "edits",
    multiple=True,
    metavar="PATH=VALUE",
    help="A setting of the service that is started, as for `kosine serve`.",
)
@click.option("--pid", type=click.IntRange(1), help="Process of the service at --url, to account its CPU.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.png",
    help="Draw latency over time, reloads marked; needs kosine[bench].",
)
def bench_command(*, as_json: bool, plot: Path | None, **options: Any) -> None:
    """Measure a service under load, and check that its answers are exact.

    Starts one on generated vectors, or on FILE, unless a --url is given. Exit code 1 if a request failed or
    an answer was not exact.
    """
    if plot is not None:
        check_plot(plot)
    plan = _plan(options, keeps_samples=plot is not None)
    with _sigterm_unwinds(), _Narrator() as narrator:
        report, measured = run_bench(plan, narrator)
        if plot is not None:
            draw(measured, plot)
    _print(report, as_json=as_json)
    raise click.exceptions.Exit(0 if report.good else 1)


def _plan(options: dict[str, Any], *, keeps_samples: bool) -> BenchPlan:
    every: float | None = options["reload_every"]
    loads = plan_loads(options["concurrency"], options["rates"], connections=options["connections"])
    filter_ = FilterPlan(
        exclude=options["exclude"],
        mask=options["mask"],
        not_mask=options["not_mask"],
        mask_file=options["mask_file"],
        mask_share=options["mask_share"],
    )
    rounds: int = options["rounds"] or 0
    return BenchPlan(
        url=options["url"],
        indexes=plan_indexes(options["indexes"], options["files"]),
        loads=filtered_loads(loads, rounds=rounds) if filter_ else loads,
        filter=filter_ or None,
        rounds=rounds,
        rows=options["rows"],
        dim=options["dim"],
        k=options["k"],
        body=options["body"],
        queries=options["queries"],
        seconds=options["duration"] or (8 * every if every else 3.0),
        warm_up=options["warm_up"],
        timeout=options["timeout"],
        seed=options["seed"],
        reload_every=every,
        allow_rewrite=options["allow_rewrite"],
        generator=options["generator"],
        keeps_samples=keeps_samples,
        edits=options["edits"],
        pid=options["pid"],
    )


def _print(report: BenchReport, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(report))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)
    for part in render(report):
        console.print(part)


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """Stopped by a job runner, too, the bench stops its service and puts files back."""

    def unwind(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(_TERMINATED)

    previous = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


class _Narrator:
    """Implements Narrator on stderr: a live line on a terminal, a line per step elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live = self._console.status("") if self._console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def step(self, text: str) -> None:
        """See Narrator."""
        if self._live is not None:
            self._live.update(Text(f"{text} ..."))
        else:
            click.echo(f"{text} ...", err=True)

    def progress(self, load: Load, so_far: Progress) -> None:
        """See Narrator."""
        if self._live is not None:
            failed = f", {so_far.failed} failed" if so_far.failed else ""
            self._live.update(Text(f"{load.title}: {so_far.answered} answered{failed}"))
