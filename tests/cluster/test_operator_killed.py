"""Killed between any two of its requests, the operator loses nothing and leaves nothing twice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.control_plane.cluster import until
from tests.kit.operator_process import operator_process, start_operator
from tests.kit.operator_world import callers, condition_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kit.operator_world import World


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_write_it_ends_the_same(world: World, when: str) -> None:
    """Create, change and share, each cut off at its n-th write: the next one finishes, nothing is twice."""
    steps = [
        (world.podless("items"),),
        (world.podless("items", k=3), world.podless("users")),
        (world.server("shared", replicas=0), world.index("orders", server="shared"), world.podless("items")),
    ]
    world.namespace.apply(steps[0][0])
    for number in range(1, 10):
        world.namespace.apply(*steps[(number - 1) // 3])
        killed = start_operator(
            world.namespace, module="tests.kit.operator_killed", KILL_AT=str(number), KILL_WHEN=when
        )
        until(lambda: killed.process.poll() is not None or is_quiet(world, killed), what="killed, or done")  # noqa: B023
        killed.process.kill()
        killed.process.wait()
    with operator_process(world.namespace, name="last"):
        expected = [
            "ConfigMap/items",
            "ConfigMap/shared",
            "ConfigMap/users",
            "Deployment/items",
            "Deployment/shared",
            "Deployment/users",
            "Service/items",
            "Service/orders",
            "Service/shared",
            "Service/users",
        ]
        until(lambda: expected == world.children() and world.is_settled("items"), what=f"{expected}")
        world.namespace.kubectl("delete", "cosineindex", "items", "orders", "users")
        left = ["ConfigMap/shared", "Deployment/shared", "Service/shared"]
        until(lambda: left == world.children(), what="deleted")


def is_quiet(world: World, operator: Any) -> bool:
    """Whether an operator that has listed everything has nothing left to do."""
    if not operator.log.exists() or not operator.events("synced"):
        return False
    found = world.namespace.list("cosineindexes")
    return all(
        condition_of(each, "Ready").get("observedGeneration") == each["metadata"]["generation"]
        for each in found
    )


@pytest.mark.timeout(600)
def test_one_change_a_life_is_enough_to_move_and_to_delete(world: World) -> None:
    """Killed as soon as it has changed one object, again and again: nobody notices, and nothing is left."""
    for name, first in (("items", 1), ("users", 2)):
        world.publish(name, first=first)
    with operator_process(world.namespace):
        world.namespace.apply(world.server("left"), world.server("right"))
        world.namespace.apply(world.index("items", server="left"))
        world.namespace.apply(world.index("users", server={"networkPolicy": {}}))
        world.ready("items", "users")
        until(lambda: len(world.pod_names()) == 3, what="three pods")
    pods = {name for name in world.pod_names() if not name.startswith("users-")}

    with callers(world, "items") as of_items, callers(world, "users") as of_users:
        for name in ("items", "users"):
            patch = {"spec": {"server": None, "serverRef": {"name": "right"}}}
            world.namespace.kubectl("patch", "cosineindex", name, "--type=merge", "-p", json.dumps(patch))
        live_on_until(world, lambda: all(has_moved(world, name) for name in ("items", "users")))

    assert ([], []) == (of_items.failures, of_users.failures)
    assert ({1}, {2}) == (set(of_items.answers), set(of_users.answers))
    servers = [f"{kind}/{name}" for kind in ("ConfigMap", "Deployment") for name in ("left", "right")]
    services = [f"Service/{name}" for name in ("items", "left", "right", "users")]
    assert [*servers, *services] == world.children()
    assert pods == world.pod_names()

    world.namespace.kubectl("delete", "cosineindex", "items", "users")
    world.namespace.kubectl("delete", "cosineserver", "left")
    left = ["ConfigMap/right", "Deployment/right", "Service/right"]
    live_on_until(world, lambda: left == world.children() and world.indexes_of("right") == set())
    until(lambda: len(world.pod_names()) == 1, what="the pods gone")


def live_on_until(world: World, done: Callable[[], bool]) -> None:
    """Operators one after the other, each killed at its first change."""
    for _ in range(60):
        if done():
            return
        life = start_operator(
            world.namespace, module="tests.kit.operator_killed", KILL_WHEN="changed", KILL_AT="0"
        )
        until(lambda: life.process.poll() is not None or done(), what="a change, or the end", within=120)  # noqa: B023
        life.process.kill()
        life.process.wait()
    raise AssertionError("60 changes, and still not there")


def has_moved(world: World, name: str) -> bool:
    """Whether only `right` serves it any more, and says so."""
    status = world.status(name)
    return (
        status.get("serving") == {"kind": "CosineServer", "name": "right"}
        and "previous" not in status
        and world.is_ready(name)
        and "items" not in world.indexes_of("left")
        and world.namespace.get("deployment", "users") is None
    )
