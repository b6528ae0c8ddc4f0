"""`/livez`, `/readyz` and `/metrics`, over HTTP."""

from __future__ import annotations

from dataclasses import dataclass

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from kosine_operator.api_errors import Forbidden, Throttled
from kosine_operator.health import Health, serve_health
from kosine_operator.inventory import Inventory
from kosine_operator.kinds import BY_NAME, INDEX
from kosine_operator.metrics import Metrics, OperatorCollector, reason_of
from kosine_operator.work_queue import Finished


@dataclass
class State:
    """Queue, inventory and phase in one."""

    waited: float = 0.0
    unheard: float = 0.0
    waiting_for: str | None = None
    depth: int = 0

    def oldest(self) -> float:
        """As a queue."""
        return self.waited

    def unheard_for(self) -> float:
        """As an inventory."""
        return self.unheard


async def answers(state: State, *paths: str) -> list[tuple[int, str]]:
    """Status and text of each path."""
    health = Health(queue=state, inventory=state, phase=state, stuck_after=180.0)
    metrics = Metrics()
    async with (
        serve_health(health, registry=metrics.registry, host="127.0.0.1", port=0) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        found = []
        for path in paths:
            async with session.get(path) as response:
                found.append((response.status, await response.text()))
    return found


@pytest.mark.parametrize(
    ("state", "live", "ready"),
    [
        (State(), 200, 200),
        (State(waited=180.0, unheard=180.0), 200, 200),
        (State(waited=181.0), 503, 200),
        (State(unheard=181.0), 503, 200),
        (State(waiting_for="the first list"), 200, 503),
    ],
)
async def test_health_says_whether_the_operator_works(state: State, live: int, ready: int) -> None:
    """Alive while queue and watch make progress; ready once everything is known."""
    assert [live, ready] == [status for status, _ in await answers(state, "/livez", "/readyz")]


async def test_whoever_asks_is_told_why() -> None:
    """Each reason is a line."""
    state = State(waited=200.0, unheard=300.0, waiting_for="the first list")
    (_, dead), (_, unready) = await answers(state, "/livez", "/readyz")

    assert [
        "queue: the oldest pool has waited for 200 s",
        "watch: has not told for 300 s what lists show",
    ] == (dead.splitlines())
    assert "the first list\n" == unready


async def test_metrics_are_what_prometheus_reads() -> None:
    """Every family of ours is there from the start."""
    ((status, text),) = await answers(State(), "/metrics")
    names = {family.name for family in text_string_to_metric_families(text)}

    assert 200 == status
    assert {"kosine_operator_reconciles", "kosine_operator_writes"} <= names


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    """One value."""
    return metrics.registry.get_sample_value(name, labels)


@pytest.mark.parametrize(
    ("error", "again", "outcome", "reason"),
    [
        (None, None, "settled", None),
        (None, 1.0, "pending", None),
        (Forbidden("no"), 1.0, "failed", "forbidden"),
        (Throttled("no", retry_after=1.0), 1.0, "failed", "throttled"),
        (TimeoutError(), 1.0, "failed", "overdue"),
        (KeyError("spec"), 1.0, "failed", "defect"),
    ],
)
def test_each_look_is_counted(
    error: Exception | None, again: float | None, outcome: str, reason: str | None
) -> None:
    """By outcome, and by reason where it failed."""
    metrics = Metrics()
    metrics.finished(
        Finished(key="a", waited=0.5, seconds=2.0, error=error, failures=1 if error else 0, again=again)
    )

    assert 1.0 == sample(metrics, "kosine_operator_reconciles_total", outcome=outcome)
    assert 2.0 == sample(metrics, "kosine_operator_reconcile_seconds_sum")
    assert 0.5 == sample(metrics, "kosine_operator_queue_seconds_sum")
    if error is not None and reason is not None:
        assert reason == reason_of(error)
        assert 1.0 == sample(metrics, "kosine_operator_reconcile_errors_total", reason=reason)


def test_writes_are_counted_by_kind_and_verb() -> None:
    """A cluster at rest shows none."""
    metrics = Metrics()
    metrics.wrote(BY_NAME["Deployment"], "apply")

    assert 1.0 == sample(metrics, "kosine_operator_writes_total", kind="Deployment", verb="apply")


def test_gauges_are_read_when_they_are_asked_for() -> None:
    """Queue, watch and objects as they are now."""
    metrics, inventory, state = Metrics(), Inventory(now=lambda: 0.0), State(waited=7.0, depth=3)
    metrics.registry.register(OperatorCollector(queue=state, inventory=inventory))
    inventory.put(INDEX, {"metadata": {"name": "items", "namespace": "shop", "resourceVersion": "1"}})

    assert 3.0 == sample(metrics, "kosine_operator_queue_depth")
    assert 7.0 == sample(metrics, "kosine_operator_queue_oldest_seconds")
    assert 0.0 == sample(metrics, "kosine_operator_watch_behind_seconds")
    assert 1.0 == sample(metrics, "kosine_operator_objects", kind="CosineIndex")
