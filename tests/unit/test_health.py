"""Ready, alive and stopping are different answers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import numpy as np
import pytest

from kosine.errors import EngineFailed, LoadCode, Stage
from kosine.serving.dispatcher import Dispatcher
from kosine.serving.health import Health
from kosine.serving.registry import Registry
from kosine.serving.status import LoadFailure, LoadStatus
from tests.kit.engines import NumpyEngine, matrix_of
from tests.kit.serving import VirtualDevice, never, unit, version_of

BAD_FILE = LoadFailure(
    code=LoadCode.BAD_MAGIC, stage=Stage.GATE, detail="", at=datetime(2026, 1, 1, tzinfo=UTC), consecutive=1
)


@pytest.fixture
async def dispatcher() -> Dispatcher:
    return Dispatcher(VirtualDevice())


@pytest.mark.parametrize(
    ("indexes", "expected"),
    [
        ({}, []),
        ({"items": "loading"}, ["items: loading"]),
        ({"items": "failed"}, ["items: failed"]),
        ({"items": "available"}, []),
        ({"items": "available", "users": "loading"}, ["users: loading"]),
        ({"items": "available", "users": "failed"}, []),
        ({"items": "available", "users": "retrying"}, []),
        ({"items": "failed", "users": "failed"}, ["items: failed", "users: failed"]),
        ({"items": "failed", "users": "retrying"}, ["items: failed", "users: loading"]),
        ({"items": "available", "optional": "loading"}, []),
        ({"items": "failed", "optional": "available"}, ["items: failed"]),
        ({"optional": "failed"}, []),
    ],
)
async def test_ready_means_all_were_tried_and_one_is_good(
    dispatcher: Dispatcher, indexes: dict[str, str], expected: list[str]
) -> None:
    """N22: one broken index keeps no pod out that serves others; a pod of that index alone it does."""
    registry = Registry()
    statuses = {
        "failed": LoadStatus(last_error=BAD_FILE),
        "retrying": LoadStatus(last_error=BAD_FILE, stage=Stage.FETCH),
    }
    for name, state in indexes.items():
        registry.declare(name, source=f"{name}.npy", required=name != "optional")
        if state == "available":
            registry.publish(name, version_of(dispatcher))
        registry.note(name, statuses.get(state, LoadStatus()))

    assert expected == Health(registry=registry, dispatcher=dispatcher).ready()


async def test_readiness_does_not_drop_with_a_failed_reload_or_a_new_index(dispatcher: Dispatcher) -> None:
    """Law 2: a bad file or an index that was added live takes no traffic away from the others."""
    registry = Registry()
    health = Health(registry=registry, dispatcher=dispatcher)
    registry.declare("items", source="items.npy", required=True)
    registry.publish("items", version_of(dispatcher))
    assert [] == health.ready()

    registry.note("items", LoadStatus(last_error=BAD_FILE))
    registry.declare("added", source="added.npy", required=True)

    assert [] == health.ready()


async def test_stopping_is_unready_first(dispatcher: Dispatcher) -> None:
    """H20: a process that drains says so before anything else."""
    health = Health(registry=Registry(), dispatcher=dispatcher)
    assert [] == health.ready()

    health.draining = True

    assert ["shutting_down"] == health.ready()


async def test_a_device_that_fails_on_everything_is_unready(dispatcher: Dispatcher) -> None:
    """H21: when every index's engine fails, traffic should go elsewhere."""
    registry = Registry()
    health = Health(registry=registry, dispatcher=dispatcher)
    registry.declare("items", source="items.npy", required=True)
    engine = NumpyEngine(matrix=matrix_of(np.eye(4)), fail_on=lambda _: RuntimeError("gone"))
    version = version_of(dispatcher, engine=engine)
    registry.publish("items", version)
    assert [] == health.ready()

    for _ in range(3):
        with pytest.raises(EngineFailed):
            await version.batcher.search(unit(4, 0), 1, deadline=1e12, abandoned=never)

    assert ["device: the engine fails on every query"] == health.ready()


async def test_a_stuck_engine_call_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine call that never returns ends the liveness probe, so that the pod is restarted."""
    dispatcher = Dispatcher(VirtualDevice(seconds=3600))
    health = Health(registry=Registry(), dispatcher=dispatcher)
    version = version_of(dispatcher)
    waiting = asyncio.ensure_future(version.batcher.search(unit(4, 0), 1, deadline=1e12, abandoned=never))
    await asyncio.sleep(0.01)
    assert [] == health.live()

    monkeypatch.setattr("kosine.serving.health.STUCK_SECONDS", 0.001)

    assert 1 == len(health.live())
    waiting.cancel()
