"""What a Prometheus finds at service and operator: samples and labels, asked of the code that serves them."""

from __future__ import annotations

import re

from prometheus_client import CollectorRegistry, Metric

from kosine.metrics import Metrics
from kosine.serving.collector import IndexCollector
from kosine.serving.registry import Registry
from kosine_operator.inventory import Inventory
from kosine_operator.metrics import Metrics as OperatorMetrics
from kosine_operator.metrics import OperatorCollector

__all__ = ("names_in", "operator_labels", "operator_samples", "service_labels", "service_samples")

_SUFFIXES = {
    "counter": ("_total",),
    "info": ("_info",),
    "histogram": ("_bucket", "_sum", "_count"),
    "gauge": ("",),
}
_OF_TARGETS = ("namespace", "job", "pod", "service", "instance")
_INFO_LABELS = {
    "kosine_build": {"version"},
    "kosine_config": {"hash"},
    "kosine_index_version": {"index", "version", "metric", "device"},
}


def _metrics() -> list[Metric]:
    gauges = CollectorRegistry(auto_describe=False)
    gauges.register(IndexCollector(Registry()))
    return [*Metrics().registry.collect(), *gauges.collect()]


def service_samples() -> set[str]:
    """Names of samples: those of the service, and of the process where the system tells them."""
    return {f"{metric.name}{suffix}" for metric in _metrics() for suffix in _SUFFIXES[metric.type]}


def service_labels() -> set[str]:
    """Labels that the service gives, and those that every target has."""
    metrics = Metrics()
    ours = {
        label for family in metrics.registry.collect() for sample in family.samples for label in sample.labels
    }
    families = (getattr(metrics._families, name) for name in metrics._families.__slots__)
    return ours.union(
        *(family._labelnames for family in families),
        *_INFO_LABELS.values(),
        metrics._refused._labelnames,
        {"le", *_OF_TARGETS},
    )


class _EmptyQueue:
    depth = 0

    def oldest(self) -> float:
        return 0.0


def operator_samples() -> set[str]:
    """Names of samples of the operator."""
    metrics = OperatorMetrics()
    metrics.registry.register(OperatorCollector(queue=_EmptyQueue(), inventory=Inventory(now=lambda: 0.0)))
    return {
        f"{metric.name}{suffix}" for metric in metrics.registry.collect() for suffix in _SUFFIXES[metric.type]
    }


def operator_labels() -> set[str]:
    """Labels that the operator gives, and those that every target has."""
    metrics = OperatorMetrics()
    families = (metrics._reconciles, metrics._errors, metrics._seconds, metrics._waited, metrics._writes)
    return {"le", *_OF_TARGETS}.union(*(family._labelnames for family in families))


def names_in(expression: str) -> set[str]:
    """Names of samples in a PromQL expression: what looks like one of a service or a process."""
    return set(re.findall(r"\b(?:kosine|process|python)_[a-z_]+", expression))
