"""`kosine bench` as people type it: real services, fractions of a second; structure and counts, no timing."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from kosine.bench import measure
from kosine.bench.report import BenchReport
from kosine.bench.wrk import Wrk
from kosine.cli import main
from tests.kit.process import eventually, kosine_serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kosine.bench.report import PointReport
    from tests.kit.process import ServiceProcess

SECONDS = 60
ROWS, DIM = 400, 16
CONFIG = """
defaults: {max_k: 10, refresh: {settle: 50ms, interval: 1s}}
indexes:
  items: {uri: items.npy, masks: {even: even.npy}}
  tight: {uri: items.npy, batch: {queue_rows: 1, max_rows: 1}}
"""


def bench(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kosine", "bench", "--warm-up", "50ms", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


def reported(done: subprocess.CompletedProcess[str]) -> BenchReport:
    return msgspec.json.decode(done.stdout, type=BenchReport)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file, and another of the same shape."""
    folder = tmp_path_factory.mktemp("bench")
    for seed, name in enumerate(("items", "other")):
        vectors = np.random.default_rng(seed).standard_normal((ROWS, DIM), dtype=np.float32)
        np.save(folder / f"{name}.npy", vectors)
    even = np.arange(ROWS) % 2 == 0
    np.save(folder / "even.npy", even)
    np.save(folder / "odd.npy", ~even)
    (folder / "kosine.yaml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[ServiceProcess]:
    """A service that runs already."""
    with kosine_serve("--config", folder / "kosine.yaml") as started:
        started.wait_ready()
        yield started


def assert_counts_agree(point: PointReport) -> None:
    """What client, service and histograms counted is the same number."""
    assert point.requests == point.answered + sum(point.failures.values())
    assert point.total is not None
    assert point.queue is not None
    assert point.engine is not None
    assert point.server is not None
    assert [point.answered] * 3 == [point.total.count, point.queue.count, point.engine.count]
    assert {"ok": point.answered} == point.server.requests
    calls = sum(point.server.batches.values())
    assert calls == sum(bucket.batches for bucket in point.server.batch_rows)
    assert point.server.mean_batch_rows == pytest.approx(point.answered / calls, abs=0.001)
    assert 0 < point.total.p50 <= point.total.p95 <= point.total.p99 <= point.total.p99_9 <= point.total.max


def test_a_service_of_its_own_is_measured_with_reloads_and_every_answer_is_exact() -> None:
    """Two indexes of made vectors by weight, closed and open loop, each answer judged by its version."""
    done = bench(
        *("--json", "--rows", "600", "--dim", "12", "--duration", "800ms", "--reload-every", "200ms"),
        *("-c", "4", "--rate", "150", "--index", "items=3", "--index", "users", "--queries", "50"),
        *("--set", "defaults.refresh.settle=50ms"),
    )
    assert 0 == done.returncode, done.stderr
    report = reported(done)
    assert (True, 0, 1.0) == (report.good, report.failed, report.recall)
    assert [("items", 3.0, 600, 12, True), ("users", 1.0, 600, 12, True)] == [
        (index.name, index.weight, index.rows, index.dim, index.checked) for index in report.indexes
    ]
    closed, opened = report.points
    assert (("closed", 4, None), ("open", 256, 150.0)) == tuple(
        (point.mode, point.connections, point.rate) for point in (closed, opened)
    )
    for point in (closed, opened):
        assert_counts_agree(point)
        assert (1.0, point.answered) == (point.recall, point.checked)
        assert point.score_error is not None
        assert point.score_error < 1e-5
        assert point.server_cpu is not None
        assert point.server_cpu.seconds > 0
        assert point.client_cpu.seconds > 0
        reload = point.reload
        assert reload is not None
        assert 1 <= len(reload.reloads) <= reload.planned
        parts = (reload.during, reload.without, reload.between)
        assert point.answered == sum(part.count for part in parts if part is not None)
    assert closed.send_delay is None
    assert opened.send_delay is not None
    assert opened.requests == opened.send_delay.count
    assert report.machine.cores >= 1
    assert "numpy" in report.machine.packages


def test_a_running_service_is_measured_and_the_table_is_for_people(
    service: ServiceProcess, folder: Path
) -> None:
    """Its CPU too, with its process; progress goes to standard error."""
    done = bench(
        *("--url", service.url, "--file", folder / "items.npy", "--pid", str(service.process.pid)),
        *("-c", "2", "--duration", "200ms", "--queries", "40", "--k", "7", "--generator", "own"),
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("load") and "p99.9" in line for line in lines)
    assert 2 == sum(line.startswith("closed c=2") for line in lines)
    assert f"items: {ROWS} x {DIM}, cosine, k=7, json bodies, 40 queries" in lines
    assert lines[-1].startswith("recall 1.0 of ")
    assert lines[-1].endswith(" answers, 0 requests failed")
    assert "CPU is not known" not in done.stdout
    assert "closed c=2 ..." in done.stderr


def test_wrong_answers_are_found(service: ServiceProcess, folder: Path) -> None:
    """Judged by another file than the one that is served: exit code 1, and what is wrong."""
    done = bench(
        *("--url", service.url, "--file", folder / "other.npy", "--json"),
        *("-c", "2", "--duration", "100ms", "--queries", "20"),
    )
    assert 1 == done.returncode
    report = reported(done)
    assert report.recall is not None
    assert report.recall < 0.5
    assert (False, 0) == (report.good, report.failed)
    assert "of 10 rows are right" in report.points[0].warnings[0]


def test_refused_requests_are_counted_by_code(service: ServiceProcess) -> None:
    """A queue of one row cannot hold sixteen callers: exit code 1, and the good answers still count."""
    done = bench("--url", service.url, "--index", "tight", "-c", "16", "--duration", "200ms", "--json")
    assert 1 == done.returncode
    [point] = reported(done).points
    assert {"429 overloaded"} == set(point.failures)
    assert point.answered > 0
    assert (None, 0) == (point.recall, point.checked)
    assert point.server is not None
    assert {"ok": point.answered, "overloaded": point.failures["429 overloaded"]} == point.server.requests


@pytest.mark.skipif(Wrk.find() is None, reason="wrk is not installed")
@pytest.mark.parametrize(
    ("generator", "busy", "more"),
    [("wrk", 0.9, ()), ("auto", 0.0, ()), ("wrk", 0.9, ("--exclude", "50", "--rounds", "1"))],
)
def test_wrk_makes_the_same_report(
    generator: str,
    busy: float,
    more: tuple[str, ...],
    service: ServiceProcess,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Asked for, or where the own client was too busy; answers are checked around it, few left unanswered."""
    monkeypatch.setattr(measure, "BUSY_CORES", busy)
    options = ["--url", service.url, "--file", folder / "items.npy", "--generator", generator, "--json"]
    load = ["-c", "4", "--duration", "200ms", "--queries", "30"]
    done = CliRunner().invoke(main, ["bench", *map(str, options), *load, *more])
    assert 0 == done.exit_code, done.output
    points = msgspec.json.decode(done.stdout, type=BenchReport).points
    assert [False, True][: len(points)] == [point.filtered for point in points]
    for point in points:
        assert ("wrk", 1.0, 60) == (point.generator, point.recall, point.checked)
        assert point.server is not None
        assert point.engine is not None
        assert 0 <= sum(point.server.requests.values()) - point.answered <= 4
        assert point.answered == point.engine.count > 0


def test_a_filter_is_measured_in_turn_with_plain_queries_and_checked() -> None:
    """On a service of its own, with a mask that the bench makes; nothing that is excluded is found."""
    done = bench(
        *("--json", "--rows", "600", "--dim", "12", "--duration", "150ms", "--queries", "40", "-c", "4"),
        *("--exclude", "100", "--mask", "in_stock", "--mask-share", "0.2", "--rounds", "2"),
    )
    assert 0 == done.returncode, done.stderr
    report = reported(done)
    assert (True, 1.0) == (report.good, report.recall)
    assert report.filter is not None
    assert (100, "in_stock", None) == (report.filter.exclude, report.filter.mask, report.filter.not_mask)
    assert report.filter.mask_rows is not None
    assert 60 < report.filter.mask_rows < 180
    assert [False, True, True, False] == [point.filtered for point in report.points]
    for point in report.points:
        assert_counts_agree(point)
        assert point.answered == point.checked > 0
    [compared] = report.comparisons
    assert compared.throughput_ratio is not None
    assert compared.server_cpu_ratio is not None
    assert 0 < compared.throughput_ratio.least <= compared.throughput_ratio.median


@pytest.mark.parametrize(
    ("mask", "code", "recall"), [("even.npy", 0, 1.0), ("odd.npy", 1, 0.0), (None, 0, None)]
)
def test_a_mask_of_a_running_service_is_checked_where_its_file_is_given(
    mask: str | None, code: int, recall: float | None, service: ServiceProcess, folder: Path
) -> None:
    """Another file than the service reads makes its answers wrong; without one they are not checked."""
    options = ["--url", service.url, "--file", folder / "items.npy", "--not-mask", "even", "--json"]
    known = () if mask is None else ("--mask-file", str(folder / mask))
    load = ["-c", "4", "--duration", "100ms", "--warm-up", "0s", "--queries", "20"]
    done = CliRunner().invoke(main, ["bench", *map(str, options), *load, *known])
    assert code == done.exit_code, done.output
    report = msgspec.json.decode(done.stdout, type=BenchReport)
    assert recall == report.recall
    assert [mask is not None] == [index.checked for index in report.indexes]
    assert (mask is None) == any("--mask-file" in warning for warning in report.warnings)
    assert all(point.filtered and point.answered for point in report.points)


def test_a_file_of_somebody_else_is_put_back(service: ServiceProcess, folder: Path) -> None:
    """With --allow-rewrite it is replaced for a while; in the end it is the same file as before."""
    served = folder / "items.npy"
    before, names = served.stat().st_ino, {path.name for path in folder.iterdir()}
    done = bench(
        *("--url", service.url, "--file", served, "--reload-every", "200ms", "--allow-rewrite"),
        *("--duration", "800ms", "-c", "2", "--json", "--queries", "40"),
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    [point] = reported(done).points
    assert point.reload is not None
    assert point.reload.reloads
    assert 1.0 == point.recall
    assert (before, names) == (served.stat().st_ino, {path.name for path in folder.iterdir()})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--url", "https://somewhere"], "expected http://HOST:PORT"),
        (["--url", "http://127.0.0.1:1"], "cannot reach http://127.0.0.1:1/indexes/items"),
        (["--file", "missing.npy"], "cannot read missing.npy: No such file"),
        (["--duration", "soon"], "expected a duration, such as 500ms, 3s or 1m"),
        (["--duration", "1ms"], "expected from 100ms to 1d"),
        (["--rate", "0"], "0 is not in the range"),
        (["--pid", "1"], "give its --url too"),
        (["--plot", "x.jpeg"], "--plot"),
        (["--rounds", "3"], "give --exclude or --mask, too"),
        (["--exclude", "1", "--body", "binary"], "use --body json or base64"),
    ],
)
def test_what_cannot_be_measured_is_one_message_and_exit_code_2(arguments: list[str], said: str) -> None:
    """Before anything is started."""
    done = CliRunner().invoke(main, ["bench", *arguments])
    assert (2, "") == (done.exit_code, done.stdout)
    assert said in done.stderr


def test_a_file_that_the_service_refuses_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    """Exit code 2 with what the service said of it, not a wait for a readiness that never comes."""
    vectors = np.random.default_rng(0).standard_normal((50, 8), dtype=np.float32)
    vectors[3] = 0
    np.save(tmp_path / "zero.npy", vectors)
    done = bench("--file", tmp_path / "zero.npy")
    assert (2, "") == (done.returncode, done.stdout)
    assert "zero_rows" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_leaves_nothing_behind(
    number: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its service nor its files."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = [sys.executable, "-m", "kosine", "bench", "--rows", "100", "--dim", "4"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    started = psutil.Process(process.pid)
    eventually(lambda: bool(started.children()), within=SECONDS, what="a service was started")
    children = started.children()
    process.send_signal(number)
    _, said = process.communicate(timeout=SECONDS)
    assert code == process.returncode
    assert "Traceback" not in said
    assert [] == [child for child in children if child.is_running()]
    assert [] == [*tmp_path.iterdir()]
