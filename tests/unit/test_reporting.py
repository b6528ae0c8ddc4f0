"""What is told of a load while it runs."""

from __future__ import annotations

from structlog.testing import capture_logs

from kosine.errors import Stage
from kosine.loading.reporting import Reporter
from kosine.metrics import Metrics
from kosine.serving.registry import Registry


def test_a_long_load_tells_how_far_it_is_every_five_seconds() -> None:
    """A short one is silent; the next load begins anew."""
    now, registry = 0.0, Registry()
    registry.declare("items", source="s3://vectors/items.npy", required=True)
    with capture_logs() as told:
        reporter = Reporter("items", registry=registry, metrics=Metrics(), clock=lambda: now)
        for _ in range(2):
            for second in range(13):
                now += 1.0
                reporter.progressed(Stage.FETCH, second, 100)
            reporter.called_off()
    fetched = {"event": "reload_progress", "log_level": "info", "index": "items", "stage": "fetch"}
    once = [{**fetched, "bytes_read": done, "bytes_total": 100} for done in (5, 10)]
    assert once + once == told


def test_the_status_shows_every_step() -> None:
    """`bytes_read` of `bytes_total` as they are reported, and none between loads."""
    registry = Registry()
    registry.declare("items", source="s3://vectors/items.npy", required=True)
    reporter = Reporter("items", registry=registry, metrics=Metrics())
    reporter.progressed(Stage.FETCH, 7, 100)
    status = registry.load_status("items")
    assert (Stage.FETCH, 7, 100) == (status.stage, status.bytes_read, status.bytes_total)
    reporter.called_off()
    status = registry.load_status("items")
    assert (None, 0, 0) == (status.stage, status.bytes_read, status.bytes_total)
