"""What a Prometheus finds at the service: samples and their labels, asked of the code that serves them."""

from __future__ import annotations

import re

from prometheus_client import CollectorRegistry, Metric

from kosine.metrics import Metrics
from kosine.serving.collector import IndexCollector
from kosine.serving.registry import Registry

__all__ = ("names_in", "service_labels", "service_samples")

_SUFFIXES = {
    "counter": ("_total",),
    "info": ("_info",),
    "histogram": ("_bucket", "_sum", "_count"),
    "gauge": ("",),
}
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
        {"le", "namespace", "job", "pod", "service", "instance"},
    )


def names_in(expression: str) -> set[str]:
    """Names of samples in a PromQL expression: what looks like one of a service or a process."""
    return set(re.findall(r"\b(?:kosine|process|python)_[a-z_]+", expression))
