"""Every metric by name, in one place. Labels are kinds and reasons: bounded sets, never names of resources.

Gauges are read from what they describe when they are scraped, never pushed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kosine_operator.api_errors import ApiError
from kosine_operator.kinds import WATCHED

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

    from prometheus_client import Metric

    from kosine_operator.kinds import Kind, Ref
    from kosine_operator.work_queue import Finished

__all__ = ("Metrics", "OperatorCollector", "reason_of")

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Counters and histograms of one operator, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._reconciles = Counter(
            "kosine_operator_reconciles",
            "Looks at a pool by outcome: settled, pending, or failed.",
            ("outcome",),
            registry=self.registry,
        )
        self._errors = Counter(
            "kosine_operator_reconcile_errors",
            "Looks at a pool that failed, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "kosine_operator_reconcile_seconds",
            "One look at a pool, whatever came of it.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._waited = Histogram(
            "kosine_operator_queue_seconds",
            "From being due to being looked at.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._writes = Counter(
            "kosine_operator_writes",
            "Writes that changed an object, by kind and verb: apply, delete, status, annotate.",
            ("kind", "verb"),
            registry=self.registry,
        )

    def finished(self, look: Finished[Hashable]) -> None:
        """A pool was looked at."""
        outcome = "failed" if look.error else "settled" if look.again is None else "pending"
        self._reconciles.labels(outcome).inc()
        self._seconds.observe(look.seconds)
        self._waited.observe(look.waited)
        if look.error is not None:
            self._errors.labels(reason_of(look.error)).inc()

    def wrote(self, kind: Kind, verb: str) -> None:
        """An object was changed."""
        self._writes.labels(kind.name, verb).inc()


def reason_of(error: Exception) -> str:
    """A stable word for an error: the API's, or that it is a defect of ours."""
    if isinstance(error, ApiError):
        return error.reason
    return "overdue" if isinstance(error, TimeoutError) else "defect"


class _Queue(Protocol):
    @property
    def depth(self) -> int:
        """Keys that are due or being looked at."""

    def oldest(self) -> float:
        """Seconds."""


class _Inventory(Protocol):
    def refs(self, kind: Kind) -> Iterator[Ref]:
        """Objects of a kind."""

    def unheard_for(self) -> float:
        """Seconds."""


class OperatorCollector(Collector):
    """What the queue and the inventory are like now."""

    def __init__(self, *, queue: _Queue, inventory: _Inventory) -> None:
        self._queue = queue
        self._inventory = inventory

    def collect(self) -> Iterable[Metric]:
        """As Prometheus asks."""
        yield GaugeMetricFamily(
            "kosine_operator_queue_depth", "Pools due or being looked at.", value=self._queue.depth
        )
        yield GaugeMetricFamily(
            "kosine_operator_queue_oldest_seconds",
            "How long the slowest pool has been due, or being looked at.",
            value=self._queue.oldest(),
        )
        yield GaugeMetricFamily(
            "kosine_operator_watch_behind_seconds",
            "How long lists have shown something that the watch has not told; 0 while it keeps up.",
            value=self._inventory.unheard_for(),
        )
        objects = GaugeMetricFamily(
            "kosine_operator_objects", "Objects that the operator watches, by kind.", labels=("kind",)
        )
        for kind in WATCHED:
            objects.add_metric([kind.name], sum(1 for _ in self._inventory.refs(kind)))
        yield objects
