"""Metrics: the names people alert on, and labels that callers cannot multiply."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from kosine.metrics import Metrics
from kosine.metrics.distributions import DistributionFamily
from kosine.serving.collector import IndexCollector
from kosine.serving.dispatcher import Dispatcher
from kosine.serving.registry import Registry
from kosine.serving.status import LoadStatus, Pin
from tests.kit.serving import VirtualDevice, never, unit, version_of


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    """One value as a scrape would show it."""
    return metrics.registry.get_sample_value(name, labels)


async def test_a_batch_leaves_its_traces() -> None:
    """Queue, engine, rows and the reason of the flush are counted for the index that was asked."""
    metrics = Metrics()
    version = version_of(Dispatcher(VirtualDevice()), metrics=metrics)

    await asyncio.gather(
        *(version.batcher.search(unit(4, axis), 1, deadline=1e12, abandoned=never) for axis in range(3))
    )

    assert 3 == sample(metrics, "kosine_queue_seconds_count", index="items")
    assert 1 == sample(metrics, "kosine_engine_seconds_count", index="items")
    assert 3 == sample(metrics, "kosine_batch_rows_sum", index="items")
    assert 1 == sample(metrics, "kosine_batches_total", index="items", reason="idle")


async def test_the_age_of_a_version_is_that_of_its_source() -> None:
    """Not that of the pod; where no store says when it was written, the load has to do."""
    metrics, registry = Metrics(), Registry()
    metrics.registry.register(IndexCollector(registry))
    registry.declare("items", source="items.npy", required=True)
    version = version_of(Dispatcher(VirtualDevice()), metrics=metrics)
    registry.publish("items", version)
    name = "kosine_index_modified_timestamp_seconds"
    assert version.info.loaded_at.timestamp() == sample(metrics, name, index="items")
    version.info = replace(version.info, modified=5.0)
    assert 5 == sample(metrics, name, index="items")


async def test_gauges_of_an_index_go_with_it() -> None:
    """What a scrape says of an index is read from the registry, so nothing outlives its index."""
    metrics, registry = Metrics(), Registry()
    metrics.registry.register(IndexCollector(registry))
    registry.declare("items", source="items.npy", required=True)
    registry.publish("items", version_of(Dispatcher(VirtualDevice()), metrics=metrics))
    assert 4 == sample(metrics, "kosine_index_rows", index="items")
    assert 1 == sample(
        metrics, "kosine_index_version_info", index="items", version="v1", metric="cosine", device="/CPU:0"
    )
    assert 0 == sample(metrics, "kosine_index_pinned", index="items")
    registry.note("items", LoadStatus(pin=Pin(version="v1", at=datetime.now(UTC))))
    assert 1 == sample(metrics, "kosine_index_pinned", index="items")
    metrics.request("items", "ok", 0.001)

    await registry.remove("items")
    metrics.forget("items")

    assert b'index="items"' not in generate_latest(metrics.registry)


def test_requests_are_counted_by_outcome() -> None:
    """One counter and one histogram per index, by outcome."""
    metrics = Metrics()
    for outcome in ("ok", "ok", "overloaded"):
        metrics.request("items", outcome, 0.002)

    assert 2 == sample(metrics, "kosine_requests_total", index="items", outcome="ok")
    assert 1 == sample(metrics, "kosine_requests_total", index="items", outcome="overloaded")
    assert 3 == sample(metrics, "kosine_request_seconds_count", index="items")


@given(values=st.lists(st.floats(0, 20) | st.sampled_from((0.0005, 0.001, 10.0)), max_size=50))
def test_a_distribution_is_a_histogram_of_the_library(values: list[float]) -> None:
    """Whatever is observed, a scrape shows what prometheus_client's own histogram would have shown."""
    bounds = (0.0005, 0.001, 0.5, 10.0)
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    histogram = Histogram("kosine_seconds", "Seconds.", ("index",), buckets=bounds, registry=theirs)
    family = DistributionFamily("kosine_seconds", "Seconds.", bounds)
    ours.register(family)

    histogram.labels("items")
    for value in values:
        histogram.labels("items").observe(value)
        family.of("items").observe(value)
    family.of("items")

    shown = [line for line in generate_latest(theirs).decode().splitlines() if "_created" not in line]
    assert shown == generate_latest(ours).decode().splitlines()
