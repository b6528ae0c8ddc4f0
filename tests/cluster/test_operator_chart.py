"""The chart `kosine-operator` on a real control plane: its pod under its own roles, beside others, gone."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.kit.chart_files import CHARTS
from tests.kit.control_plane.cluster import CommandFailed, until
from tests.kit.operator_release import CRDS, OperatorRelease, operator_release, pasted
from tests.kit.operator_world import World

if TYPE_CHECKING:
    from tests.kit.control_plane.cluster import Namespace
    from tests.kit.object_stores import ObjectServer

SERVICE_CHART = str(CHARTS / "kosine")
OURS = "app.kubernetes.io/managed-by=kosine-operator"


def world_of(namespace: Namespace, store: ObjectServer, **first: int) -> World:
    """A namespace whose pods may read the store, with a file for each index of `first`."""
    made = World(namespace, store)
    made.allow()
    for name, row in first.items():
        made.publish(name, first=row)
    return made


def restricted(namespace: Namespace) -> None:
    """Let in only pods of the restricted Pod Security Standard."""
    namespace.kubectl("label", "namespace", namespace.name, "pod-security.kubernetes.io/enforce=restricted")


def install_service(namespace: Namespace, world: World) -> None:
    """The chart `kosine` as the release `search`, which serves the file of the index `items`."""
    keys = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "secret"}
    namespace.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": keys})
    values = {
        "image": {"tag": "test"},
        "indexes": {"items": {"uri": world.index("items")["spec"]["source"]["uri"]}},
        "process": {
            "drain_delay": "1s",
            "threads": 1,
            "stores": {"s3": {"endpoint_url": world.store.endpoint, "region": "us-east-1"}},
        },
        "stores": {"s3": {"existingSecret": "keys"}},
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": None},
    }
    path = namespace.plane.files.folder / f"{namespace.name}-search.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    namespace.helm("install", "search", SERVICE_CHART, f"--values={path}")


def first_of_default(namespace: Namespace) -> int:
    """The row that the release `search` answers a query along axis 0 with."""
    url = f"http://{namespace.cluster_address('search-kosine')}/cos"
    answer = httpx.post(url, json={"embedding": [1.0, 0.0, 0.0, 0.0]}, timeout=20, trust_env=False)
    return int(answer.raise_for_status().json()["result"][0][0])


def denied(release: OperatorRelease, *elsewhere: Namespace) -> list[Any]:
    """What the operator was not allowed to do in its namespace, in those `elsewhere`, and in the cluster.

    In others nobody may create anything while they are being deleted, as those of earlier tests may be.
    """
    places = {"", release.namespace.name, *(each.name for each in elsewhere)}
    return [asked for asked in release.requests() if asked.status == 403 and asked.namespace in places]


@pytest.mark.usefixtures("no_crds")
def test_from_an_empty_cluster_to_an_answer(namespace: Namespace, store: ObjectServer) -> None:
    """Install, apply what the notes show, wait as they say, ask: under Pod Security `restricted`."""
    world = world_of(namespace, store, items=2)
    restricted(namespace)
    release = OperatorRelease(namespace)
    started = time.monotonic()
    manifest, wait = pasted(release.install())
    manifest["spec"] |= world.index("items")["spec"]
    namespace.apply(manifest)
    namespace.kubectl(*wait)
    assert 2 == world.first("items")
    sys.stdout.write(f"from helm install to an answer: {time.monotonic() - started:.1f} s\n")  # pytest -rP

    assert release.requests()
    assert [] == denied(release) + release.errors()
    release.uninstall()


@pytest.mark.usefixtures("crds_may_go")
def test_crds_belong_to_one_release_and_what_is_kept_serves_on(
    namespace: Namespace, neighbour: Namespace, store: ObjectServer
) -> None:
    """Kept: the index answers, and another release must take the CRDs over to manage, or to delete them."""
    world = world_of(namespace, store, items=1)
    # The CRDs are there since before the garbage collector, and so known to it; see control_plane.py.
    release = OperatorRelease(namespace)
    release.install("--take-ownership")
    namespace.apply(world.index("items"))
    world.ready("items")
    pods = world.pod_names() - release.pods()
    release.uninstall()
    assert (1, pods) == (world.first("items"), world.pod_names())

    other = OperatorRelease(neighbour, "other", {"watchNamespaces": [namespace.name]})
    with pytest.raises(CommandFailed, match="ownership metadata"):
        other.install()
    other.install("--take-ownership", "--replace", crds={"keep": False})
    namespace.apply(world.index("items", k=2))
    world.ready("items")
    assert (2, pods) == (len(world.ask("items")["result"]), world.pod_names())

    other.uninstall()
    for definition in CRDS:
        namespace.wait("delete", definition)
    until(lambda: not namespace.list("deployments,services,configmaps,pods", OURS), what="all of it gone")


def test_every_namespace_is_worked_in_where_that_was_asked_for(
    namespace: Namespace, neighbour: Namespace, store: ObjectServer
) -> None:
    """`clusterWide`: a ClusterRole that suffices, and that goes with the release."""
    world = world_of(neighbour, store, items=3)
    with operator_release(namespace, clusterWide=True) as release:
        neighbour.apply(world.index("items"))
        world.ready("items")
        assert 3 == world.first("items")
        assert [] == denied(release, neighbour)
        role = f"{namespace.name}:{release.fullname}"
        assert namespace.get("clusterrole", role)
    assert None is namespace.get("clusterrole", role)
    assert None is namespace.get("clusterrolebinding", role)


def test_releases_side_by_side_keep_to_their_namespaces(
    namespace: Namespace, neighbour: Namespace, store: ObjectServer
) -> None:
    """Two operators, an index of one name in each namespace; taking one away touches nothing of the other."""
    here, there = world_of(namespace, store, items=1), world_of(neighbour, store, items=2)
    with operator_release(neighbour) as second:
        with operator_release(namespace) as first:
            for world in (here, there):
                world.namespace.apply(world.index("items"))
            here.ready("items")
            there.ready("items")
            assert [1, 2] == [here.first("items"), there.first("items")]
            assert {namespace.name} == {asked.namespace for asked in first.requests() if asked.namespace}
            assert [] == denied(first) + denied(second)
        neighbour.apply(there.index("items", k=1))
        there.ready("items")


def test_both_charts_live_in_one_namespace(namespace: Namespace, store: ObjectServer) -> None:
    """Neither takes what is the other's, not even under its name, and either may go."""
    world = world_of(namespace, store, items=1)
    with operator_release(namespace):
        install_service(namespace, world)
        taken = world.index("search-kosine")
        namespace.apply(world.index("items"), taken)
        assert "NameConflict" == world.condition("search-kosine", "Accepted", "False")["reason"]
        world.ready("items")
        namespace.rolled_out("search-kosine")
        assert 1 == first_of_default(namespace)
    assert (1, 1) == (world.first("items"), first_of_default(namespace))
    namespace.helm("uninstall", "search", "--wait")
    assert 1 == world.first("items")
