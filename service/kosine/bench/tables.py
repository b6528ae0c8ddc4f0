"""A report for people: what was measured, one line per load, and what needs attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import RenderableType

    from kosine.bench.counters import Bucket
    from kosine.bench.percentiles import Percentiles
    from kosine.bench.report import (
        BenchReport,
        ComparisonReport,
        CpuReport,
        FilterReport,
        PointReport,
        Ratio,
    )

__all__ = ("render",)

_NONE = "-"


def render(report: BenchReport) -> Iterator[RenderableType]:
    """What to print, in order."""
    yield from _head(report)
    yield _latencies(report.points)
    yield _service(report.points)
    if any(point.reload is not None for point in report.points):
        yield _reloads(report.points)
    if report.comparisons:
        yield _comparisons(report.comparisons)
    for point in report.points:
        for warning in point.warnings:
            yield Text(f"{_title(point)}: {warning}", style="yellow")
    for warning in report.warnings:
        yield Text(warning, style="yellow")
    yield _verdict(report)


def _head(report: BenchReport) -> Iterator[Text]:
    machine = report.machine
    yield Text(
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_bytes / 2**30:.0f} GiB, {machine.system}, "
        f"Python {machine.python}, load {machine.load_average:g}",
        style="dim",
    )
    whose = "started for this" if report.started_service else "running"
    edits = f" with {', '.join(report.settings)}" if report.settings else ""
    yield Text(f"kosine {report.kosine}, {report.url} ({whose}{edits})", style="dim")
    for index in report.indexes:
        rows = "?" if index.rows is None else f"{index.rows}"
        share = f", weight {index.weight:g}" if len(report.indexes) > 1 else ""
        yield Text(
            f"{index.name}: {rows} x {index.dim}, {index.metric}, k={report.k}, {report.body} bodies, "
            f"{report.queries} queries{share}",
            style="dim",
        )
    if report.filter is not None:
        yield Text(_filter(report.filter), style="dim")


def _filter(found: FilterReport) -> str:
    """What each filtered query carries."""
    parts = [f"exclude {found.exclude} rows each"] if found.exclude else []
    left = "" if found.mask_rows is None else f" (leaves {found.mask_rows} rows)"
    named = {"mask": found.mask, "not_mask": found.not_mask}
    parts += [f"{field} {mask}{left}" for field, mask in named.items() if mask is not None]
    return f"filtered queries {', '.join(parts)}"


def _latencies(points: Iterable[PointReport]) -> Table:
    heads = ("p50", "p95", "p99", "p99.9", "queue\np50", "queue\np99", "engine\np50", "engine\np99")
    table = _table("load", "req/s", *heads, "recall", "failed")
    for point in points:
        total, queue, engine = point.total, point.queue, point.engine
        table.add_row(
            _title(point),
            f"{point.throughput:.0f}",
            *_columns(total, "p50", "p95", "p99", "p99_9"),
            *_columns(queue, "p50", "p99"),
            *_columns(engine, "p50", "p99"),
            Text(_recall(point.recall), style="" if point.recall in {1, None} else "bold red"),
            _failures(point),
        )
    table.caption = "milliseconds"
    return table


def _service(points: Iterable[PointReport]) -> Table:
    spent = ("server CPU\ns/1000", "client CPU\ns/1000")
    table = _table("load", "rows/\nbatch", "batches by rows", "batches by reason", *spent)
    for point in points:
        server = point.server
        table.add_row(
            _title(point),
            _NONE if server is None or server.mean_batch_rows is None else f"{server.mean_batch_rows:.1f}",
            _NONE if server is None else " ".join(map(_bucket, server.batch_rows)) or _NONE,
            _NONE if server is None else _shares(server.batches),
            _cpu(point.server_cpu),
            _cpu(point.client_cpu),
        )
    return table


def _reloads(points: Iterable[PointReport]) -> Table:
    heads = ("during", "between", "without", "ratio", "during", "without")
    table = _table("load", "reloads", "took s", *_two_lines("p99", heads[:4]), *_two_lines("max", heads[4:]))
    for point in points:
        found = point.reload
        if found is None:
            continue
        table.add_row(
            _title(point),
            f"{len(found.reloads)} of {found.planned}",
            _number(found.mean_reload_seconds, 2),
            *_columns(found.during, "p99"),
            *_columns(found.between, "p99"),
            *_columns(found.without, "p99"),
            _number(found.p99_ratio, 2),
            *_columns(found.during, "max"),
            *_columns(found.without, "max"),
        )
    table.caption = "milliseconds; during: between the rename of the file and the first sight of its version"
    return table


def _comparisons(found: Iterable[ComparisonReport]) -> Table:
    table = _table("filtered / plain", "rounds", "req/s", "p50", "server CPU\ns/1000")
    for each in found:
        table.add_row(
            f"{each.mode} {_load(each.connections, each.rate)}",
            f"{each.rounds}",
            *map(_ratio, (each.throughput_ratio, each.p50_ratio, each.server_cpu_ratio)),
        )
    table.caption = "median of the rounds (least to most)"
    return table


def _verdict(report: BenchReport) -> Text:
    checked = sum(point.checked for point in report.points)
    known = report.recall is not None
    answers = f"recall {_recall(report.recall)} of {checked} answers" if known else "no answer was checked"
    return Text(
        f"{answers}, {report.failed} requests failed", style="bold green" if report.good else "bold red"
    )


def _two_lines(above: str, heads: Sequence[str]) -> list[str]:
    return [f"{above}\n{head}" for head in heads]


def _table(*heads: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", caption_justify="left", caption_style="dim")
    for number, head in enumerate(heads):
        text = number == 0 or head.startswith("batches")
        wraps = text or head == "failed"
        table.add_column(head, justify="left" if text else "right", no_wrap=not wraps, vertical="bottom")
    return table


def _title(point: PointReport) -> str:
    filtered = " filtered" if point.filtered else ""
    wrk = " (wrk)" if point.generator == "wrk" else ""
    return f"{point.mode} {_load(point.connections, point.rate)}{filtered}{wrk}"


def _load(connections: int, rate: float | None) -> str:
    return f"c={connections}" if rate is None else f"{rate:g}/s"


def _ratio(found: Ratio | None) -> str:
    return _NONE if found is None else f"{found.median:.3f} ({found.least:.3f} to {found.most:.3f})"


def _columns(found: Percentiles | None, *names: str) -> Iterator[str]:
    for name in names:
        yield _NONE if found is None else _milliseconds(getattr(found, name))


def _milliseconds(value: float) -> str:
    """Three digits, as far as they go.

    >>> _milliseconds(0.1234), _milliseconds(12.34), _milliseconds(1234.5)
    ('0.12', '12.3', '1234')
    """
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"  # noqa: PLR2004


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"


def _recall(recall: float | None) -> str:
    """Never rounded up to 1.

    >>> _recall(1.0), _recall(0.9999999)
    ('1.0', '0.99999')
    """
    if recall is None:
        return _NONE
    return "1.0" if recall == 1 else f"{min(recall, 0.99999):.5f}"


def _failures(point: PointReport) -> Text:
    if not point.failures:
        return Text("0")
    parts = (f"{count} x {name}" for name, count in sorted(point.failures.items()))
    return Text(", ".join(parts), style="bold red")


def _bucket(bucket: Bucket) -> str:
    if bucket.up_to is None:
        rows = f">{bucket.above}"
    elif bucket.up_to == bucket.above + 1:
        rows = f"{bucket.up_to}"
    else:
        rows = f"{bucket.above + 1}-{bucket.up_to}"
    return f"{rows}:{bucket.batches}"


def _shares(batches: dict[str, int]) -> str:
    total = sum(batches.values())
    most = sorted(batches.items(), key=lambda item: -item[1])
    return " ".join(f"{reason} {count / total:.0%}" for reason, count in most) or _NONE


def _cpu(spent: CpuReport | None) -> str:
    return _NONE if spent is None or spent.seconds_per_1000 is None else f"{spent.seconds_per_1000:.3f}"
