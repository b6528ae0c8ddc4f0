"""What filters cost, from the points of a run."""

from __future__ import annotations

import msgspec
import numpy as np

from kosine.bench.comparison import compare
from kosine.bench.percentiles import percentiles
from kosine.bench.report import CpuReport, PointReport, Ratio
from tests.kit.bench_points import UNKNOWN


def point(throughput: float, *, filtered: bool, rate: float | None = None, cpu: float | None) -> PointReport:
    """Of c=64; its p50 is that of 64 callers who wait in turn."""
    spent = None if cpu is None else CpuReport(seconds=1.0, cores=1.0, seconds_per_1000=cpu)
    return msgspec.structs.replace(
        UNKNOWN,
        mode="closed" if rate is None else "open",
        connections=64,
        rate=rate,
        filtered=filtered,
        generator="own",
        requests=1,
        answered=1,
        throughput=throughput,
        total=percentiles(np.array([64 / throughput])) if throughput else None,
        server_cpu=spent,
    )


def test_rounds_are_compared_each_by_itself() -> None:
    """Whichever came first; a machine that slows down between rounds changes no ratio."""
    points = [
        point(1000.0, filtered=False, cpu=0.2),
        point(900.0, filtered=True, cpu=0.25),
        point(400.0, filtered=True, cpu=0.45),
        point(500.0, filtered=False, cpu=0.4),
        point(100.0, filtered=False, cpu=0.5),
        point(95.0, filtered=True, cpu=0.5),
    ]
    [found] = compare(points, rounds=3)
    assert ("closed", 64, 3) == (found.mode, found.connections, found.rounds)
    assert Ratio(median=0.9, least=0.8, most=0.95) == found.throughput_ratio
    assert Ratio(median=1.125, least=1.0, most=1.25) == found.server_cpu_ratio


def test_each_load_has_a_comparison_and_what_is_not_known_none() -> None:
    """The throughput of an open loop is its rate, the CPU of a service elsewhere nobody's."""
    points = [
        point(100.0, filtered=False, cpu=None),
        point(80.0, filtered=True, cpu=None),
        point(50.0, filtered=False, rate=50.0, cpu=1.0),
        point(50.0, filtered=True, rate=50.0, cpu=2.0),
    ]
    closed, opened = compare(points, rounds=1)
    assert (0.8, None) == (
        closed.throughput_ratio and closed.throughput_ratio.median,
        closed.server_cpu_ratio,
    )
    assert (None, 2.0) == (
        opened.throughput_ratio,
        opened.server_cpu_ratio and opened.server_cpu_ratio.median,
    )
    [unanswered] = compare([msgspec.structs.replace(points[0], total=None), points[1]], rounds=1)
    assert unanswered.p50_ratio is None
