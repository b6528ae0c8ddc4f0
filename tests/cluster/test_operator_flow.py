"""From `kubectl apply` to an answer: the operator, a real API server, and pods that run the real service."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit.control_plane.cluster import until
from tests.kit.control_plane.namespaces import NODE_ADDRESS
from tests.kit.google_account import google
from tests.kit.operator_process import operator_process
from tests.kit.operator_world import S3_KEYS, World, callers, unit_vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.control_plane.cluster import Namespace
    from tests.kit.object_stores import ObjectServer
    from tests.kit.operator_process import OperatorProcess

OURS = "app.kubernetes.io/managed-by=kosine-operator"
EVERYTHING = (
    "configmaps,services,deployments,poddisruptionbudgets,horizontalpodautoscalers,networkpolicies,pods"
)


@pytest.fixture
def operator(namespace: Namespace) -> Iterator[OperatorProcess]:
    """One that works in the namespace; new data causes no event, so it looks around often."""
    with operator_process(namespace, "--resync", "5") as running:
        yield running
        assert [] == running.events("reconcile_defect")


@pytest.fixture
def world(namespace: Namespace, store: ObjectServer, operator: OperatorProcess) -> World:
    """The words of these tests."""
    assert operator.process.poll() is None
    made = World(namespace, store)
    made.allow()
    return made


def children(world: World) -> list[str]:
    """Everything that is ours, as kind/name."""
    return sorted(
        f"{found['kind']}/{found['metadata']['name']}" for found in world.namespace.list(EVERYTHING, OURS)
    )


def test_an_index_is_served_and_leaves_nothing_behind(world: World) -> None:
    """Apply -> Ready -> an answer through its Service -> delete: no finalizer, and nothing of it is left."""
    world.publish("items", first=2)
    world.namespace.apply(world.index("items"))
    world.ready("items")
    resource, status = world.namespace.get("cosineindex", "items"), world.status("items")

    assert 2 == world.first("items")
    assert resource is not None
    assert "finalizers" not in resource["metadata"]
    assert "annotations" not in resource["metadata"]
    assert (4, 4, "1/1") == (status["loaded"]["rows"], status["loaded"]["dim"], status["loadedPods"])
    assert "Ready" in {event["reason"] for event in events_of(world, "items")}

    world.namespace.kubectl("delete", "cosineindex", "items", "--wait=false")
    world.namespace.wait("delete", "cosineindex/items")
    until(lambda: not children(world), what="everything collected")


def events_of(world: World, name: str) -> list[dict[str, Any]]:
    """Kubernetes Events about an index."""
    found = world.namespace.list("events.events.k8s.io")
    return [event for event in found if event["regarding"].get("name") == name]


def test_a_hot_change_reaches_every_pod_and_restarts_none(world: World) -> None:
    """Ready for the new generation means: each ready pod confirmed it. No caller notices anything."""
    world.publish("items")
    world.namespace.apply(world.index("items", k=3, server={"replicas": 2}))
    world.ready("items")
    pods = world.pod_names()
    with callers(world, "items") as asking:
        world.namespace.apply(world.index("items", k=1, server={"replicas": 2}))
        world.ready("items", within=60)
        lengths = {len(world.ask("items")["result"]) for _ in range(20)}

    assert {1} == lengths
    assert pods == world.pod_names()
    assert [] == asking.failures
    assert 2 == world.status("items")["loadedReplicas"]


def test_new_data_is_served_and_told_without_a_new_pod(world: World) -> None:
    """The status follows the file; the operator never reads it."""
    world.publish("items")
    world.namespace.apply(world.index("items"))
    world.ready("items")
    pods, version = world.pod_names(), world.status("items")["loaded"]["version"]
    world.publish("items", first=3)

    until(lambda: world.first("items") == 3, what="the new file")
    until(lambda: world.status("items")["loaded"]["version"] != version, what="the new version", within=120)
    assert pods == world.pod_names()


def test_what_is_pod_shaped_rolls_out_without_a_gap(world: World) -> None:
    """New resources mean new pods; the old one answers until the new one does."""
    world.publish("items")
    world.namespace.apply(world.index("items"))
    world.ready("items")
    before = world.pod_names()
    with callers(world, "items") as asking:
        changed = {"resources": {"requests": {"cpu": "10m"}}}
        world.namespace.apply(world.index("items", server=changed))
        world.ready("items")

    until(lambda: len(world.pod_names()) == 1, what="one pod left")
    assert not before & world.pod_names()
    assert [] == asking.failures
    assert asking.answers


def test_scaling_is_a_field_like_others(world: World) -> None:
    """`kubectl scale` writes the spec, and the pods follow."""
    world.publish("items")
    world.namespace.apply(world.index("items", server={"replicas": 1}))
    world.ready("items")
    world.namespace.kubectl("scale", "cosineindex", "items", "--replicas=2")
    until(lambda: world.status("items").get("loadedPods") == "2/2", what="two pods", within=120)

    assert "PodDisruptionBudget/items" in children(world)


def test_an_index_moves_to_another_server_without_a_gap(world: World) -> None:
    """Loaded there first, then its Service is turned, then the old pods go."""
    world.publish("items", first=1)
    world.namespace.apply(world.server("shared"), world.index("items"))
    world.ready("items")
    with callers(world, "items") as asking:
        # `server` and `serverRef` exclude each other, so it is one patch.
        patch = {"spec": {"server": None, "serverRef": {"name": "shared"}}}
        world.namespace.kubectl("patch", "cosineindex", "items", "--type=merge", "-p", json.dumps(patch))
        world.ready("items")
        until(
            lambda: world.namespace.get("deployment", "items") is None, what="the old pods' Deployment gone"
        )

    assert [] == asking.failures
    assert {1} == set(asking.answers)
    assert {"kind": "CosineServer", "name": "shared"} == world.status("items")["serving"]
    assert ["Deployment/shared"] == [name for name in children(world) if name.startswith("Deployment/")]


def test_indexes_share_a_server_and_come_and_go_without_new_pods(world: World) -> None:
    """Another index, and one less, are configuration; each is reached under its own name."""
    for name, first in (("items", 1), ("users", 2)):
        world.publish(name, first=first)
    world.namespace.apply(world.server("shared"), world.index("items", server="shared"))
    world.ready("items")
    pods = world.pod_names()
    world.namespace.apply(world.index("users", server="shared"))
    world.ready("users")

    assert [1, 2] == [world.first("items"), world.first("users")]
    world.namespace.kubectl("delete", "cosineindex", "items")
    until(lambda: "items" not in configuration(world, "shared"), what="items dropped")
    assert 2 == world.first("users")
    assert pods == world.pod_names()


def configuration(world: World, name: str) -> str:
    """What the pods of a pool are told."""
    found = world.namespace.get("configmap", name)
    assert found is not None
    return str(found["data"]["kosine.yaml"])


def test_indexes_with_credentials_of_their_own_join_without_new_pods(world: World) -> None:
    """They are keys of a Secret, of S3 and of Google; who has none, or another's, is the only one refused."""
    names = ("items", "users", "articles", "songs")
    with google(NODE_ADDRESS) as accounts:
        for first, name in enumerate(names):
            world.publish(name, first=first)
            accounts.put(unit_vectors(first=first), name)
        articles, songs = accounts.key("articles"), accounts.key("songs")
        world.secret("teams", {"articles": articles, "songs": articles})
        stores = world.pods()["stores"] | {"gcs": {"endpointUrl": accounts.endpoint}}
        secrets = {"s3": {"name": "store"}, "indexes": {"name": "teams"}}
        shared = world.server("shared", credentials=secrets, stores=stores)
        world.namespace.apply(shared, world.index("items", server="shared"))
        world.ready("items")
        pods = world.pod_names()
        join = [world.index(name, server="shared") for name in names[1:]]
        for index, name in zip(join, names[1:], strict=True):
            index["spec"]["source"]["credentials"] = name
        for index, name in zip(join[1:], names[2:], strict=True):
            index["spec"]["source"]["uri"] = f"gs://{name}/rows.npy"
        world.namespace.apply(*join)
        world.ready("articles")
        for name, told in (("users", "FileNotFoundError"), ("songs", "403")):
            degraded = world.condition(name, "Degraded", "True")
            assert ("AccessDenied", True) == (degraded["reason"], told in degraded["message"])

        world.secret("teams", {"users": S3_KEYS, "articles": articles, "songs": songs})
        world.namespace.kubectl("annotate", "pods", "--all", "tests/look=now")  # at the Secret, not in 15 s
        world.ready("users", "songs")
        assert [0, 1, 2, 3] == [world.first(name) for name in names]
        assert pods == world.pod_names()


def test_a_bad_file_degrades_and_the_old_version_serves(world: World) -> None:
    """Each pod that cannot load says so with its reason; a good file ends it."""
    world.publish("items", first=1)
    world.namespace.apply(world.index("items"))
    world.ready("items")
    world.publish_garbage("items")
    degraded = world.condition("items", "Degraded", "True", within=120)

    assert "ServingStaleVersion" == degraded["reason"]
    assert 1 == world.first("items")
    assert world.pod_names() == {world.status("items")["lastFailure"]["pod"]}
    world.publish("items", first=2)
    world.condition("items", "Degraded", "False", within=120)
    assert 2 == world.first("items")


def test_a_source_that_is_deleted_degrades_and_is_served_on(world: World) -> None:
    """What was loaded is kept until there is something else."""
    world.publish("items", first=1)
    world.namespace.apply(world.index("items"))
    world.ready("items")
    world.withdraw("items")
    world.condition("items", "Degraded", "True", within=120)

    assert 1 == world.first("items")
    assert "source_missing" == world.status("items")["lastFailure"]["reason"]


def test_one_broken_source_holds_back_no_pod_of_a_shared_server(world: World) -> None:
    """New pods come up and roll out beside it; where it is all there is, its pod waits."""
    world.publish("items", first=1)
    world.namespace.apply(
        world.server("shared"),
        *(world.index(name, server="shared") for name in ("items", "broken")),
        world.index("alone"),
    )
    world.ready("items")
    pods = {name for name in world.pod_names() if name.startswith("shared-")}
    world.namespace.apply(world.server("shared", resources={"requests": {"cpu": "10m"}}))
    until(lambda: pods.isdisjoint(world.pod_names()), what="rolled out", within=120)

    assert 1 == world.first("items")
    for name in ("broken", "alone"):
        assert "SourceNotFound" == world.condition(name, "Ready", "False")["reason"]
    assert "NoReadyPods" == world.condition("alone", "Available", "False")["reason"]
    world.publish("alone", first=2)
    world.ready("alone")


def test_an_index_waits_for_its_server(world: World) -> None:
    """The order of creation does not matter, and what is missing is named."""
    world.publish("items")
    world.namespace.apply(world.index("items", server="shared"))
    refused = world.condition("items", "Accepted", "False")
    assert "ServerNotFound" == refused["reason"]
    world.namespace.apply(world.server("shared"))

    world.ready("items")
    assert 0 == world.first("items")


def test_nothing_of_what_is_paused_is_changed(world: World) -> None:
    """Neither what is asked for, nor what somebody does to its children by hand; both follow afterwards."""
    world.namespace.apply(world.index("items", server={"replicas": 0}))
    until(lambda: len(children(world)) == 3, what="its children")
    world.namespace.apply(world.index("items", server={"replicas": 0}, paused=True, k=7))
    world.condition("items", "Progressing", "False")
    world.namespace.kubectl("delete", "service", "items")
    world.namespace.kubectl("label", "cosineindex", "items", "look=again")
    until(
        lambda: (world.namespace.get("cosineindex", "items") or {})["status"]["observedGeneration"] == 2,
        what="the pause seen",
    )
    assert world.namespace.get("service", "items") is None
    assert "k: 7" not in configuration(world, "items")

    world.namespace.apply(world.index("items", server={"replicas": 0}, paused=False, k=7))
    until(lambda: "k: 7" in configuration(world, "items"), what="the change")
    until(lambda: world.namespace.get("service", "items"), what="the Service")
