"""What the operator outlives and leaves: outages, rivals, broken neighbours, drift."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.control_plane.cluster import until
from tests.kit.control_plane.forgetful_api import forgetful_api
from tests.kit.operator_cluster import minimal_rights, writes_of
from tests.kit.operator_process import operator_process, start_operator
from tests.kit.operator_world import callers, condition_of

if TYPE_CHECKING:
    from tests.kit.control_plane.audit import ApiRequest
    from tests.kit.control_plane.control_plane import ControlPlane
    from tests.kit.operator_world import World


def asked_by(user: str, plane: ControlPlane) -> list[ApiRequest]:
    """Requests for resources of one user."""
    return [each for each in plane.requests() if each.user == user and not each.resource.startswith("/")]


def test_a_cluster_at_rest_is_not_written_to(world: World) -> None:
    """Rounds of complete lists and questions to everything, and not one write."""
    kubeconfig, user = minimal_rights(world.namespace)
    names = [f"items-{number}" for number in range(5)]
    with operator_process(world.namespace, "--resync", "1", kubeconfig=kubeconfig) as operator:
        world.namespace.apply(*(world.podless(name) for name in names))
        until(lambda: all(world.is_settled(name) for name in names), what="settled")

        def lists() -> int:
            asked = asked_by(user, world.namespace.plane)
            return sum(each.resource == "pods" and each.verb == "list" for each in asked)

        rounds = lists()
        until(lambda: lists() >= rounds + 2, what="rounds for the last status to come to rest")
        before, rounds = writes_of(user, world.namespace.plane), lists()
        until(lambda: lists() >= rounds + 5, what="rounds")
        assert before == writes_of(user, world.namespace.plane)
        assert [] == operator.events("reconcile_failed")


@pytest.mark.parametrize(
    "drift",
    [
        ("scale", "deployment", "items", "--replicas=3"),
        ("set", "image", "deployment/items", "kosine=other:image"),
        ("delete", "service", "items"),
        ("label", "configmap", "items", "kosine.dev/pool-"),
        ("label", "deployment", "items", "app.kubernetes.io/managed-by-"),
        ("delete", "deployment", "items"),
    ],
    ids=lambda drift: " ".join(drift[:3]),
)
def test_drift_is_repaired_by_the_watch(world: World, drift: tuple[str, ...]) -> None:
    """Whatever is done to a child is undone at once: the next resync is an hour away."""
    with operator_process(world.namespace, "--resync", "3600"):
        world.namespace.apply(world.podless("items"))
        until(lambda: world.is_settled("items"), what="settled")
        intended = {kind: shape(world, kind) for kind in ("configmap", "service", "deployment")}
        world.namespace.kubectl(*drift)

        until(lambda: intended == {kind: shape(world, kind) for kind in intended}, what="as it was")


def test_drift_that_the_watch_never_told_is_repaired_by_the_next_list(world: World) -> None:
    """Events that are lost for good cost one interval, also those of a resource's own change."""
    with (
        forgetful_api(world.namespace) as api,
        operator_process(world.namespace, "--resync", "5", kubeconfig=api.kubeconfig) as operator,
    ):
        world.namespace.apply(world.podless("items"))
        until(lambda: world.is_settled("items"), what="settled")
        intended = {kind: shape(world, kind) for kind in ("service", "deployment")}
        api.forgets = True
        world.namespace.apply(world.podless("items", k=5))
        world.namespace.kubectl("scale", "deployment", "items", "--replicas=3")
        world.namespace.kubectl("delete", "service", "items")

        until(lambda: intended == {kind: shape(world, kind) for kind in intended}, what="as it was")
        until(lambda: world.is_settled("items"), what="the resource's own change")
        assert {"CosineIndex", "Deployment", "Service"} <= {kind for _, kind, _ in api.forgotten}
        assert [] == operator.events("watch_failed")


def shape(world: World, kind: str) -> Any:
    """What of a child must not drift."""
    found = world.namespace.get(kind, "items")
    if found is None:
        return None
    template = found.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [{}])
    return (
        found["metadata"]["labels"],
        found.get("data"),
        found.get("spec", {}).get("replicas"),
        template[0].get("image"),
        found.get("spec", {}).get("selector"),
    )


def test_an_api_server_that_is_away_is_waited_for(world: World) -> None:
    """Pods answer on, the operator does not end, and goes on as soon as there is somebody to talk to."""
    plane = world.namespace.plane
    world.publish("items")
    with operator_process(world.namespace) as operator:
        world.namespace.apply(world.index("items"))
        world.ready("items")
        with callers(world, "items") as asking:
            until(lambda: asking.answers, what="a first answer")
            plane.kill("kube-apiserver")
            operator.wait_for("library_message")
            answered = len(asking.answers)
            until(lambda: len(asking.answers) > answered + 100, what="answers without an API server")
            plane.start_api_server()
            world.namespace.apply(world.podless("after"))
            until(lambda: world.is_settled("after"), what="the next resource", within=120)

        assert [] == asking.failures
        assert operator.process.poll() is None
        assert (200, 200) == (operator.ask("/livez").status_code, operator.ask("/readyz").status_code)


def test_of_two_operators_one_works_and_the_other_follows(world: World) -> None:
    """The standby is ready and writes nothing until the leader dies."""
    lease = ("--lease", f"{world.namespace.name}/operator", "--lease-seconds", "3")
    with operator_process(world.namespace, *lease, "--identity", "first", name="first") as first:
        second = start_operator(world.namespace, *lease, "--identity", "second", name="second")
        try:
            second.wait_for("lease_awaited")
            assert 200 == second.ask("/readyz").status_code
            world.namespace.apply(world.podless("items"))
            until(lambda: world.is_settled("items"), what="settled by the first")
            assert [] == second.events("child_applied")

            first.end(signal.SIGKILL)
            world.namespace.apply(world.podless("users"))
            until(lambda: world.is_settled("users"), what="settled by the second")
            assert second.events("child_applied")
        finally:
            second.end()


def test_a_leader_that_was_frozen_ends_when_it_wakes(world: World) -> None:
    """Somebody else works by then; it never writes beside them."""
    lease = ("--lease", f"{world.namespace.name}/operator", "--lease-seconds", "3")
    with operator_process(world.namespace, *lease, "--identity", "first", name="first") as first:
        first.process.send_signal(signal.SIGSTOP)
        with operator_process(world.namespace, *lease, "--identity", "second", name="second") as second:
            world.namespace.apply(world.podless("items"))
            until(lambda: world.is_settled("items"), what="settled by the second")
            first.process.send_signal(signal.SIGCONT)

            assert 3 == first.process.wait(timeout=60)
            assert [] == first.events("child_applied")
            assert second.process.poll() is None


def test_one_broken_resource_holds_up_no_other(world: World) -> None:
    """What cannot be is refused by name; its neighbours are served."""
    bad = {"replicas": 0, "podTemplate": {"spec": {"restartPolicy": "Never"}}}
    with operator_process(world.namespace):
        world.namespace.apply(world.index("broken", server=bad), world.podless("items"))
        refused = world.condition("broken", "Accepted", "False")
        until(lambda: world.is_settled("items"), what="the neighbour")

    assert "InvalidPodTemplate" == refused["reason"]
    assert "Deployment" not in world.children("broken")


def test_what_the_namespace_does_not_allow_is_told_and_tried_again(world: World) -> None:
    """The server's own words are in the status; once somebody has acted, no event is needed."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"count/services": "0"}},
    }
    world.namespace.apply(quota)
    until(lambda: (world.namespace.get("resourcequota", "none") or {}).get("status"), what="a quota in force")
    with operator_process(world.namespace, "--resync", "3600"):
        world.namespace.apply(world.podless("items"))
        refused = world.condition("items", "Accepted", "False")
        assert ("Rejected", True) == (refused["reason"], "exceeded quota" in refused["message"])
        world.namespace.kubectl("delete", "resourcequota", "none")

        until(lambda: world.is_settled("items"), what="tried again")


def test_a_namesake_of_somebody_else_is_left_alone(world: World) -> None:
    """The resource is told that its name is taken, and gets it once it is free."""
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "items"}, "data": {"a": "1"}}
    world.namespace.apply(theirs)
    with operator_process(world.namespace, "--resync", "2"):
        world.namespace.apply(world.podless("items"))
        assert "NameConflict" == world.condition("items", "Accepted", "False")["reason"]
        found = world.namespace.get("configmap", "items")
        assert found is not None
        assert {"a": "1"} == found["data"]
        world.namespace.kubectl("delete", "configmap", "items")

        until(lambda: world.is_settled("items"), what="its own ConfigMap")


def test_what_was_missed_while_it_was_away_is_made_up_for(world: World) -> None:
    """Created, changed, deleted and edited while no operator ran."""
    with operator_process(world.namespace):
        world.namespace.apply(world.podless("items"), world.podless("gone"))
        until(lambda: world.is_settled("items") and world.is_settled("gone"), what="settled")
    world.namespace.kubectl("delete", "cosineindex", "gone")
    world.namespace.kubectl("delete", "service", "items")
    world.namespace.kubectl("scale", "deployment", "items", "--replicas=1")
    world.namespace.apply(world.podless("users"), world.podless("items", k=5))
    with operator_process(world.namespace, name="next"):
        until(lambda: world.is_settled("items") and world.is_settled("users"), what="settled")

    deployment = world.namespace.get("deployment", "items")
    assert deployment is not None
    assert 0 == deployment["spec"]["replicas"]
    assert [] == world.children("gone")


def test_many_resources_at_once_are_all_served_within_bounds(world: World) -> None:
    """A flood costs time and no more: everything settles, in bounded memory."""
    names = [f"items-{number}" for number in range(200)]
    with operator_process(world.namespace) as operator:
        world.namespace.apply(*(world.podless(name) for name in names))

        def settled() -> bool:
            found = world.namespace.list("cosineindexes")
            return all(condition_of(each, "Ready") for each in found) and len(found) == len(names)

        until(settled, what="a status for each", within=180)
        assert 3 * len(names) == len(world.children())
        resident = re.search(
            r"^process_resident_memory_bytes (\S+)", operator.ask("/metrics").text, re.MULTILINE
        )
        assert resident is not None
        assert float(resident[1]) < 200 * 2**20
        assert [] == operator.events("reconcile_failed")


def test_a_namespace_goes_with_the_operator_down(world: World) -> None:
    """No finalizer waits for anybody, and the operator finds nothing to do, or begins anew in another one."""
    namespace = world.namespace
    with operator_process(namespace):
        namespace.apply(world.server("shared", replicas=0), world.podless("items"))
        until(lambda: world.is_settled("items"), what="settled")
    namespace.kubectl("delete", "namespace", namespace.name, "--timeout=120s")

    with operator_process(namespace, "--resync", "1", name="next") as operator:
        namespace.kubectl("create", "namespace", namespace.name)
        namespace.apply(world.podless("items"))
        until(lambda: world.is_settled("items"), what="settled again")
        assert ["ConfigMap/items", "Deployment/items", "Service/items"] == world.children()
        assert [] == operator.events("reconcile_failed")
