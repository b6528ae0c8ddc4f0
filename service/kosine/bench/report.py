"""The result of a run, as `--json` prints it. Fields may be added; none changes its meaning.

docs/bench.md explains it. Durations are milliseconds unless the name says seconds; null is "not known".
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  msgspec reads the annotations
from typing import Literal

from msgspec import Struct

from kosine.bench.bodies import BodyFormat  # noqa: TC001
from kosine.bench.counters import ServerCounters  # noqa: TC001
from kosine.bench.machine import Machine  # noqa: TC001
from kosine.bench.percentiles import Percentiles  # noqa: TC001
from kosine.bench.reloads import ReloadReport  # noqa: TC001

__all__ = (
    "FORMAT",
    "BenchReport",
    "ComparisonReport",
    "CpuReport",
    "FilterReport",
    "Generator",
    "IndexReport",
    "Mode",
    "PointReport",
    "Ratio",
)

FORMAT = 1
"""Raised when a field changes its meaning or goes away."""

Mode = Literal["closed", "open"]
Generator = Literal["own", "wrk"]


class CpuReport(Struct, frozen=True, kw_only=True):
    """What one side spent while the load ran."""

    seconds: float
    cores: float
    """CPU seconds per second."""
    seconds_per_1000: float | None
    """Per thousand requests that were answered."""


class PointReport(Struct, frozen=True, kw_only=True):
    """One load."""

    mode: Mode
    connections: int
    rate: float | None
    """Requests due per second; open loop."""
    filtered: bool = False
    """Whether its queries carried the filter of the run."""
    generator: Generator
    seconds: float
    requests: int
    answered: int
    failures: dict[str, int]
    """Count by status and code, or what else went wrong."""
    throughput: float
    """Answers per second that came within `seconds`."""
    total: Percentiles | None
    """Of answered requests: from send to answer; open loop: from the time it was due."""
    queue: Percentiles | None
    """As the answers' Server-Timing says."""
    engine: Percentiles | None
    send_delay: Percentiles | None
    """From due to sent: the wait for a free connection, and the client's own lateness; open loop."""
    backlog: int | None
    """Most requests that were due at once and not sent; open loop."""
    checked: int
    """Answers that were compared with exact ones."""
    recall: float | None
    score_error: float | None
    """Largest difference between a returned score and the row's own; null also where a row does not exist."""
    server_cpu: CpuReport | None
    client_cpu: CpuReport
    server: ServerCounters | None
    reload: ReloadReport | None
    warnings: list[str]


class FilterReport(Struct, frozen=True, kw_only=True):
    """What filtered queries carried."""

    exclude: int
    """Row numbers, others in each query."""
    mask: str | None
    not_mask: str | None
    mask_rows: int | None
    """Rows that the mask leaves; null where there is none, or its file is not known."""


class Ratio(Struct, frozen=True, kw_only=True):
    """Filtered to plain, of all rounds."""

    median: float
    least: float
    most: float


class ComparisonReport(Struct, frozen=True, kw_only=True):
    """One load, plain and filtered in turn."""

    mode: Mode
    connections: int
    rate: float | None
    rounds: int
    throughput_ratio: Ratio | None
    """Closed loop."""
    p50_ratio: Ratio | None
    server_cpu_ratio: Ratio | None
    """Of CPU seconds per thousand answers."""


class IndexReport(Struct, frozen=True, kw_only=True):
    """One index of the load."""

    name: str
    weight: float
    rows: int | None
    dim: int
    metric: str
    version: str | None
    """At the start."""
    checked: bool
    """Whether its file is known here."""


class BenchReport(Struct, frozen=True, kw_only=True):
    """A run."""

    format: int = FORMAT
    kosine: str
    started_at: datetime
    machine: Machine
    url: str
    started_service: bool
    settings: list[str]
    """`--set` edits of the service that was started."""
    indexes: list[IndexReport]
    k: int
    body: BodyFormat = "json"
    """How queries were written."""
    queries: int
    seed: int
    filter: FilterReport | None = None
    points: list[PointReport]
    comparisons: list[ComparisonReport] = []
    """Of plain and filtered loads, where they ran in turn."""
    recall: float | None
    """The lowest of the points."""
    failed: int
    good: bool
    """Nothing failed, and every answer that was checked is exact."""
    warnings: list[str]
