"""Gauges that describe the indexes, read when Prometheus asks, so that none outlives its index or version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

    from kosine.serving.registry import Registry

__all__ = ("IndexCollector",)

_LABELS = ("index",)


class IndexCollector(Collector):
    """One sample per index and gauge."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def describe(self) -> Iterable[Metric]:
        """Names without values: registering must not read the indexes."""
        return [*_gauges().values(), _mask_rows(), _version_info()]

    def collect(self) -> Iterable[Metric]:
        """Read every index once."""
        gauges, masks, versions = _gauges(), _mask_rows(), _version_info()
        for name in self._registry.names():
            version = self._registry.current(name)
            load = self._registry.load_status(name)
            failure = load.last_error
            values: dict[str, float] = {
                "available": version is not None,
                "failures": failure.consecutive if failure else 0,
                "stale": load.stale,
                "pinned": load.pin is not None,
            }
            if version is not None:
                info = version.info
                values |= {
                    "queue": version.batcher.queued_rows,
                    "rows": info.rows,
                    "dim": info.dim,
                    "bytes": info.bytes,
                    "loaded": info.loaded_at.timestamp(),
                    "modified": info.loaded_at.timestamp() if info.modified is None else info.modified,
                    "load": info.load_seconds,
                }
                facts = {"version": info.version, "metric": info.metric, "device": info.device}
                versions.add_metric([name], facts)
                for mask, found in version.masks.named.items():
                    masks.add_metric([name, mask], found.true)
            for key, value in values.items():
                gauges[key].add_metric([name], value)
        return [*gauges.values(), masks, versions]


def _gauges() -> dict[str, GaugeMetricFamily]:
    def gauge(name: str, meaning: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"kosine_{name}", meaning, labels=_LABELS)

    return {
        "available": gauge("index_available", "1 while the index answers."),
        "failures": gauge("index_reload_failures", "Failed reloads since the last good one."),
        "stale": gauge("index_stale", "1 while a local copy serves that the store has not confirmed."),
        "pinned": gauge("index_pinned", "1 while a version is served whatever the source holds."),
        "queue": gauge("queue_rows", "Queries that wait for a batch."),
        "rows": gauge("index_rows", "Rows of the served version."),
        "dim": gauge("index_dim", "Dimension of the served version."),
        "bytes": gauge("index_bytes", "Bytes the engine holds for the served version."),
        "loaded": gauge("index_loaded_timestamp_seconds", "When the served version was loaded."),
        "modified": gauge(
            "index_modified_timestamp_seconds",
            "When the source of the served version was last written; when it was loaded, if no store says.",
        ),
        "load": gauge("index_load_seconds", "How long the served version took to load."),
    }


def _mask_rows() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "kosine_index_mask_rows", "Items that a mask of the index lets be found.", labels=(*_LABELS, "mask")
    )


def _version_info() -> InfoMetricFamily:
    return InfoMetricFamily("kosine_index_version", "The served version.", labels=_LABELS)
