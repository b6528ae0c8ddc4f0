"""What a run prints and draws."""

from __future__ import annotations

import io
import re
import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from kosine.bench.counters import Bucket, ServerCounters
from kosine.bench.machine import describe_machine
from kosine.bench.measure import Measured
from kosine.bench.percentiles import percentiles
from kosine.bench.plan import Load
from kosine.bench.plot import check_plot, draw, sliced
from kosine.bench.reloads import Reload, ReloadReport
from kosine.bench.report import (
    BenchReport,
    ComparisonReport,
    FilterReport,
    IndexReport,
    PointReport,
    Ratio,
)
from kosine.bench.samples import Samples
from kosine.bench.tables import render
from kosine.errors import StartupError
from tests.kit.bench_points import UNKNOWN

TEN = percentiles(np.arange(1, 11) / 1e3)
FULL = msgspec.structs.replace(
    UNKNOWN,
    mode="open",
    rate=900.0,
    generator="own",
    requests=12,
    answered=10,
    failures={"429 overloaded": 2},
    total=TEN,
    queue=TEN,
    engine=TEN,
    checked=10,
    recall=0.9999999,
    server=ServerCounters(
        requests={"ok": 10},
        batches={"idle": 3, "full": 1},
        batch_rows=[
            Bucket(above=0, up_to=1, batches=2),
            Bucket(above=2, up_to=4, batches=1),
            Bucket(above=4096, up_to=None, batches=1),
        ],
        mean_batch_rows=2.5,
        dropped={},
    ),
    reload=ReloadReport(
        every_seconds=2.0,
        planned=2,
        reloads=[Reload(renamed=0.25, seen=0.5)],
        mean_reload_seconds=0.25,
        during=TEN,
        without=TEN,
        between=None,
        p99_ratio=1.0,
        max_ratio=1.0,
    ),
    warnings=["look at this"],
)
COMPARED = ComparisonReport(
    mode="closed",
    connections=16,
    rate=None,
    rounds=5,
    throughput_ratio=Ratio(median=0.93, least=0.9, most=0.95),
    p50_ratio=Ratio(median=1.0625, least=1.0, most=1.25),
    server_cpu_ratio=None,
)


def report(*points: PointReport, good: bool) -> BenchReport:
    return BenchReport(
        kosine="0.1.0",
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        machine=describe_machine(),
        url="http://127.0.0.1:8080",
        started_service=False,
        settings=[],
        indexes=[
            IndexReport(
                name="items", weight=1, rows=None, dim=4, metric="cosine", version=None, checked=False
            )
        ],
        k=10,
        queries=5,
        seed=0,
        points=list(points),
        recall=min((point.recall for point in points if point.recall is not None), default=None),
        failed=2,
        good=good,
        warnings=["and at that"],
    )


def printed(*points: PointReport, good: bool = False) -> str:
    return shown(report(*points, good=good))


def shown(made: BenchReport) -> str:
    target = io.StringIO()
    console = Console(file=target, width=160, highlight=False)
    for part in render(made):
        console.print(part)
    return target.getvalue()


def test_a_point_is_one_line_a_table() -> None:
    """With failures by code, batches, reloads, and recall that is never rounded up to 1."""
    lines = printed(FULL).splitlines()
    of_the_point = [line for line in lines if line.startswith("open 900/s")]
    latency, service, reloads, warning = of_the_point
    assert ["0.99999", "2", "x", "429", "overloaded"] == latency.split()[-5:]
    assert ["5.00", "10.0", "10.0", "10.0"] == latency.split()[3:7]
    assert "1:2 3-4:1 >4096:1" in service
    assert "idle 75% full 25%" in service
    assert "1 of 2" in reloads
    assert "open 900/s: look at this" == warning
    assert "and at that" in lines
    assert "recall 0.99999 of 10 answers, 2 requests failed" == lines[-1]


def test_a_comparison_says_what_was_asked_and_what_it_cost() -> None:
    """Medians, and between what they lie."""
    filtered = msgspec.structs.replace(UNKNOWN, filtered=True)
    asked = FilterReport(exclude=100, mask=None, not_mask="adult", mask_rows=7)
    made = msgspec.structs.replace(report(UNKNOWN, filtered, good=True), filter=asked, comparisons=[COMPARED])
    lines = shown(made).splitlines()
    assert "filtered queries exclude 100 rows each, not_mask adult (leaves 7 rows)" in lines
    assert any(line.startswith("closed c=16 filtered (wrk)") for line in lines)
    [compared] = [line for line in lines if "0.930" in line]
    expected = "closed c=16 5 0.930 (0.900 to 0.950) 1.062 (1.000 to 1.250) -"
    assert expected == " ".join(compared.split())


def test_what_is_not_known_is_a_dash() -> None:
    """Another server, wrk, no file: nothing is invented."""
    latency, service = (
        line for line in printed(UNKNOWN).splitlines() if line.startswith("closed c=16 (wrk)")
    )
    assert ["-"] * 9 == latency.split()[4:13]
    assert ["-"] * 5 == service.split()[3:]


def test_the_report_is_read_back_as_it_was_written() -> None:
    """The JSON is a stable structure: its types say all of it."""
    written = report(FULL, UNKNOWN, good=True)
    assert written == msgspec.json.decode(msgspec.json.encode(written), type=BenchReport)


def field_names(kind: Any, found: set[str]) -> set[str]:
    """Of a struct and of the structs in it."""
    for field in msgspec.structs.fields(kind):
        found.add(field.name)
        for inner in re.findall(r"kosine\.bench\.(\w+)\.(\w+)", str(field.type)):
            field_names(getattr(import_module(f"kosine.bench.{inner[0]}"), inner[1]), found)
    return found


def test_every_field_of_the_json_is_documented() -> None:
    """And no other: docs/bench.md has each of them once or more in its table."""
    text = (Path(__file__).parents[2] / "docs" / "bench.md").read_text(encoding="utf-8")
    table = text.partition("<!-- fields -->")[2].partition("<!-- end -->")[0]
    assert field_names(BenchReport, set()) == set(re.findall(r"`(\w+)`", table))


def test_a_plot_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before a long run, not after it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(StartupError, match=r"pip install 'kosine\[bench\]'"):
        check_plot(tmp_path / "x.png")


@pytest.mark.parametrize(("name", "said"), [("x.pdf", "ends in .png"), ("no/x.png", "expected a folder")])
def test_a_plot_that_could_not_be_written_is_refused_first(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The same."""
    monkeypatch.setitem(sys.modules, "matplotlib", ModuleType("matplotlib"))
    with pytest.raises(StartupError, match=said):
        check_plot(tmp_path / name)


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    """One panel for each load that has single requests; the others are left out."""
    pytest.importorskip("matplotlib", reason="the extra `bench`")
    at = np.linspace(0, 1, 50)
    samples = Samples(
        start=0.0,
        intended=at,
        sent=at,
        done=at + 0.01,
        request=np.zeros(50, np.uint32),
        ok=np.ones(50, np.bool_),
        queue=at,
        engine=at,
        failures={},
        answers=[],
        times_given=np.zeros(0, np.int64),
    )
    load = Load(mode="open", connections=1, rate=900.0)
    draw([Measured(load, FULL, samples), Measured(load, UNKNOWN, None)], tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [0, 1, 2, 50, 1000])
def test_slices_of_time_show_measured_values_in_order(count: int) -> None:
    """An empty slice is left out rather than drawn as zero."""
    times, values = np.random.default_rng(count).exponential(size=(2, count))
    at, found = sliced(times, values, percent=100)
    assert (np.diff(at) > 0).all()
    assert set(found.tolist()) <= set(values.tolist())
    assert values.max(initial=0) == found.max(initial=0)
