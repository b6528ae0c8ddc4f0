"""What the service counted while a load ran."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from kosine.bench.counters import Bucket, ServerCounters, difference, read_exposition
from kosine.metrics import Metrics


def scrape(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return read_exposition(generate_latest(metrics.registry).decode())


def serve(metrics: Metrics, index: str, *, rows: int, reason: str) -> None:
    """As the batcher counts a batch whose queries are all answered."""
    series = metrics.of(index)
    series.batch_rows.observe(rows)
    series.batches(reason).inc()
    for _ in range(rows):
        metrics.request(index, "ok", 0.001)


def test_every_sample_of_the_service_is_read_with_its_value() -> None:
    """Against the client library that wrote it, labels with quotes and backslashes included."""
    metrics = Metrics()
    serve(metrics, "items", rows=3, reason="idle")
    odd = Gauge("odd", "Told by others.", ["what"], registry=metrics.registry)
    odd.labels('a "quoted", {braced} and \\ed one').set(float("inf"))
    told = (("what", r"a \"quoted\", {braced} and \\ed one"),)
    expected = {
        (sample.name, tuple(sorted(sample.labels)))
        for family in metrics.registry.collect()
        for sample in family.samples
    }
    found = scrape(metrics)
    assert expected == {(name, tuple(label for label, _ in labels)) for name, labels in found}
    assert float("inf") == found["odd", told]
    assert 3.0 == found["kosine_requests_total", (("index", "items"), ("outcome", "ok"))]


def test_the_difference_is_what_came_between_of_the_indexes_asked() -> None:
    """What was there before, and what others asked, does not count."""
    metrics = Metrics()
    serve(metrics, "items", rows=5, reason="idle")
    before = scrape(metrics)
    for rows, reason in ((1, "idle"), (2, "busy"), (3, "busy"), (4, "busy"), (5000, "full")):
        serve(metrics, "items", rows=rows, reason=reason)
    metrics.request("users", "overloaded", 0.001)
    serve(metrics, "others", rows=9, reason="idle")
    metrics.of("items").dropped_deadline.inc()
    expected = ServerCounters(
        requests={"ok": 5010, "overloaded": 1},
        batches={"busy": 3, "full": 1, "idle": 1},
        batch_rows=[
            Bucket(above=0, up_to=1, batches=1),
            Bucket(above=1, up_to=2, batches=1),
            Bucket(above=2, up_to=4, batches=2),
            Bucket(above=4096, up_to=None, batches=1),
        ],
        mean_batch_rows=1002.0,
        dropped={"deadline": 1},
    )
    assert expected == difference(before, scrape(metrics), {"items", "users"})


def test_a_restart_between_is_noticed() -> None:
    """Counters that went back tell nothing."""
    metrics = Metrics()
    serve(metrics, "items", rows=5, reason="idle")
    restarted = Metrics()
    serve(restarted, "items", rows=1, reason="idle")
    assert difference(scrape(metrics), scrape(restarted), {"items"}) is None


def test_counters_of_another_server_say_nothing_rather_than_fail() -> None:
    """Another server of the same protocol may be measured."""
    registry = CollectorRegistry()
    Gauge("up", "Whether it is.", registry=registry).set(1)
    other = read_exposition(generate_latest(registry).decode())
    found = difference(other, other, {"items"})
    assert found == ServerCounters(requests={}, batches={}, batch_rows=[], mean_batch_rows=None, dropped={})
