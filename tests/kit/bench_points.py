"""A point of a bench's report, to be filled in where a test needs more."""

from __future__ import annotations

from kosine.bench.report import CpuReport, PointReport

__all__ = ("UNKNOWN",)

UNKNOWN = PointReport(
    mode="closed",
    connections=16,
    rate=None,
    generator="wrk",
    seconds=1.0,
    requests=0,
    answered=0,
    failures={},
    throughput=0.0,
    total=None,
    queue=None,
    engine=None,
    send_delay=None,
    backlog=None,
    checked=0,
    recall=None,
    score_error=None,
    server_cpu=None,
    client_cpu=CpuReport(seconds=0.0, cores=0.0, seconds_per_1000=None),
    server=None,
    reload=None,
    warnings=[],
)
"""Of a closed loop of which nothing is known."""
