"""Every metric by name, in one place. Labels are configured index names, codes and stages: bounded sets.

A `Metrics` owns its CollectorRegistry, so that two services in one process do not meet. Gauges that
describe an index are read from the registry when scraped (`kosine.serving.collector`), never pushed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)

import kosine
from kosine.metrics.distributions import DistributionFamily

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("UNKNOWN_INDEX", "IndexMetrics", "Metrics")

UNKNOWN_INDEX = "_unknown"
"""Label of every name that is not configured, so that callers cannot make series."""

_SECONDS = (
    0.0005,
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.015,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    10.0,
)
_LOAD_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)


@dataclass(frozen=True, slots=True)
class _Families:
    """Metrics with an `index` label."""

    requests: Counter
    batches: Counter
    dropped: Counter
    reloads: Counter
    reload_seconds: Histogram
    canary_checks: Counter


@dataclass(frozen=True, slots=True)
class _Distributions:
    """What every query or batch adds to."""

    request_seconds: DistributionFamily
    queue_seconds: DistributionFamily
    engine_seconds: DistributionFamily
    batch_rows: DistributionFamily


class Metrics:
    """All counters and histograms of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        Info("kosine_build", "Version of kosine.", registry=self.registry).info(
            {"version": kosine.__version__}
        )
        self._config_ok = Gauge(
            "kosine_config_last_reload_successful",
            "1 while the configuration file on disk is the one in force.",
            registry=self.registry,
        )
        self._config = Info("kosine_config", "Hash of the configuration in force.", registry=self.registry)
        self._refused = Counter(
            "kosine_refused_connections",
            "Connections ended before a request of theirs reached a route, by the error's code.",
            ("code",),
            registry=self.registry,
        )
        self._families = self._make_families()
        self._distributions = self._make_distributions()
        self._known: dict[str, IndexMetrics] = {}

    def _make_families(self) -> _Families:
        return _Families(
            requests=self._counter(
                "requests", "Queries by outcome: ok, abandoned, or the error's code.", "outcome"
            ),
            batches=self._counter("batches", "Engine calls by why the batch was formed.", "reason"),
            dropped=self._counter(
                "dropped_queries",
                "Queries not computed: abandoned by their client, or past their deadline.",
                "why",
            ),
            reloads=self._counter(
                "reloads", "Reloads by outcome; stage where one failed.", "outcome", "stage"
            ),
            reload_seconds=self._histogram(
                "reload_seconds", "One reload, whatever came of it.", _LOAD_SECONDS
            ),
            canary_checks=self._counter(
                "canary_checks", "Checks of new versions: passed, failed or skipped.", "check", "outcome"
            ),
        )

    def _make_distributions(self) -> _Distributions:
        def distribution(name: str, meaning: str, bounds: Sequence[float]) -> DistributionFamily:
            family = DistributionFamily(f"kosine_{name}", meaning, bounds)
            self.registry.register(family)
            return family

        return _Distributions(
            request_seconds=distribution(
                "request_seconds", "From the request's head to its answer.", _SECONDS
            ),
            queue_seconds=distribution("queue_seconds", "A query's wait for its batch to start.", _SECONDS),
            engine_seconds=distribution("engine_seconds", "One engine call.", _SECONDS),
            batch_rows=distribution("batch_rows", "Rows of one engine call.", _ROWS),
        )

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"kosine_{name}", meaning, ("index", *labels), registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"kosine_{name}", meaning, ("index",), buckets=buckets, registry=self.registry)

    def of(self, index: str) -> IndexMetrics:
        """The bound series of one configured index (or of `UNKNOWN_INDEX`)."""
        known = self._known.get(index)
        if known is None:
            known = self._known[index] = IndexMetrics(self._families, self._distributions, index)
        return known

    def request(self, index: str, outcome: str, seconds: float) -> None:
        """One query was answered, refused or given up after `seconds`."""
        series = self.of(index)
        series.outcome(outcome).inc()
        series.request_seconds.observe(seconds)

    def reload(self, index: str, outcome: str, stage: str, seconds: float) -> None:
        """One reload ended: published, masks_published, unchanged or failed (at `stage`)."""
        self._families.reloads.labels(index, outcome, stage).inc()
        self._families.reload_seconds.labels(index).observe(seconds)

    def canary(self, index: str, check: str, outcome: str) -> None:
        """One check of a new version passed, failed or was skipped."""
        self._families.canary_checks.labels(index, check, outcome).inc()

    def connection_refused(self, code: str) -> None:
        """One connection was ended: too many, or what it sent is not one clear request."""
        self._refused.labels(code).inc()

    def config_applied(self, ok: bool, hash: str) -> None:  # noqa: A002, FBT001  the label's name
        """The configuration file was applied, or refused; `hash` is of the one in force."""
        self._config_ok.set(1 if ok else 0)
        self._config.info({"hash": hash})

    def forget(self, index: str) -> None:
        """Drop the series of an index that is no longer configured."""
        self._known.pop(index, None)
        for name in _Families.__slots__:
            getattr(self._families, name).remove_by_labels({"index": index})
        for name in _Distributions.__slots__:
            getattr(self._distributions, name).forget(index)


class IndexMetrics:
    """Label lookups cost more than the increments, so the hot path holds its series."""

    __slots__ = (
        "_batches",
        "_families",
        "_outcomes",
        "batch_rows",
        "dropped_abandoned",
        "dropped_deadline",
        "engine_seconds",
        "index",
        "queue_seconds",
        "request_seconds",
    )

    def __init__(self, families: _Families, distributions: _Distributions, index: str) -> None:
        self._families = families
        self.index = index
        self.request_seconds = distributions.request_seconds.of(index)
        self.queue_seconds = distributions.queue_seconds.of(index)
        self.engine_seconds = distributions.engine_seconds.of(index)
        self.batch_rows = distributions.batch_rows.of(index)
        self.dropped_abandoned = families.dropped.labels(index, "abandoned")
        self.dropped_deadline = families.dropped.labels(index, "deadline")
        self._outcomes: dict[str, Counter] = {}
        self._batches: dict[str, Counter] = {}

    def outcome(self, outcome: str) -> Counter:
        """Counter of requests that ended so."""
        counter = self._outcomes.get(outcome)
        if counter is None:
            counter = self._outcomes[outcome] = self._families.requests.labels(self.index, outcome)
        return counter

    def batches(self, reason: str) -> Counter:
        """Counter of batches formed for that reason."""
        counter = self._batches.get(reason)
        if counter is None:
            counter = self._batches[reason] = self._families.batches.labels(self.index, reason)
        return counter
