"""What is applied, left alone, repaired and deleted, against a real API server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kosine_operator.api_errors import Conflict
from kosine_operator.applier import Applier
from kosine_operator.cluster import Cluster, open_cluster
from kosine_operator.inventory import Inventory
from kosine_operator.kinds import BY_NAME, POD, Ref
from kosine_operator.pools import PoolKey
from tests.kit.control_plane.manifests import config_map, container, deployment, pod

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.kit.control_plane.cluster import Namespace

CONFIG_MAP, DEPLOYMENT = BY_NAME["ConfigMap"], BY_NAME["Deployment"]
NO_OWNER = '{"metadata": {"ownerReferences": null}}'
LABELS = {"kosine.dev/pool": "cosineindex.items", "app.kubernetes.io/managed-by": "kosine-operator"}


class Bench:
    """An applier, what it knows, and the owner of what it applies: a ConfigMap will do."""

    def __init__(self, cluster: Cluster, namespace: Namespace) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.key = PoolKey(namespace.name, "CosineIndex", "items")
        self.inventory = Inventory(now=lambda: 0.0)
        self.writes: list[tuple[str, str]] = []
        self.applier = Applier(
            self._requests_of(cluster),
            self.inventory,
            wrote=lambda kind, verb: self.writes.append((kind.name, verb)),
        )
        self.requests = 0
        self.owner = self.own("owner")

    def _requests_of(self, cluster: Cluster) -> Cluster:
        async def count() -> None:
            self.requests += 1

        return cluster.permitted_by(count)

    def own(self, name: str) -> dict[str, Any]:
        """Somebody to own things."""
        self.namespace.apply(config_map(name))
        found = self.namespace.get("configmap", name)
        assert found is not None
        return found

    def child(self, manifest: dict[str, Any], owner: dict[str, Any] | None = None) -> dict[str, Any]:
        """The manifest with our labels, and owned."""
        metadata = (owner or self.owner)["metadata"]
        reference = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": metadata["name"],
            "uid": metadata["uid"],
        }
        manifest["metadata"] |= {
            "namespace": self.namespace.name,
            "labels": dict(LABELS),
            "ownerReferences": [reference],
        }
        return manifest

    def config(self, name: str = "items", **data: str) -> dict[str, Any]:
        """A ConfigMap to apply."""
        return self.child(config_map(name, **data))

    async def apply(self, *manifests: dict[str, Any]) -> str | None:
        """The reason of the first that is refused."""
        failure = await self.applier.apply(manifests, checked_first=False)
        return None if failure is None else failure.reason

    async def relist(self) -> None:
        """As a resync does."""
        for kind in (CONFIG_MAP, DEPLOYMENT, POD):
            listing = await self.cluster.list(
                kind, self.namespace.name, selector="app.kubernetes.io/managed-by=kosine-operator"
            )
            self.inventory.replace(kind, self.namespace.name, listing.objects, version=listing.version)

    def data(self, name: str = "items") -> dict[str, str] | None:
        """What is in a ConfigMap."""
        found = self.namespace.get("configmap", name)
        return None if found is None else found.get("data", {})


@pytest.fixture
async def bench(namespace: Namespace, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """One that has applied nothing."""
    monkeypatch.setenv("KUBECONFIG", str(namespace.kubeconfig))
    async with open_cluster(within=10.0) as cluster:
        yield Bench(cluster, namespace)


async def test_what_is_settled_costs_no_request(bench: Bench) -> None:
    """A cluster at rest is left in peace, also after a resync."""
    await bench.apply(bench.config(a="1"))
    await bench.relist()
    before = bench.requests
    for _ in range(3):
        await bench.apply(bench.config(a="1"))

    assert (1, 0) == (before, bench.requests - before)
    assert [("ConfigMap", "apply")] == bench.writes


async def test_what_the_server_and_its_controllers_write_is_no_drift(bench: Bench) -> None:
    """A Deployment's status and revision change all the time; its spec is still what was applied."""
    made = bench.child(deployment("items", container("puppet:test")))
    await bench.apply(made)
    bench.namespace.rolled_out("items")
    await bench.relist()
    before = bench.requests
    await bench.apply(made)

    assert before == bench.requests


@pytest.mark.parametrize(
    "drift",
    [
        ("patch", "configmap", "items", "--patch", '{"data": {"a": "2"}}'),
        ("patch", "configmap", "items", "--patch", '{"data": null}'),
        ("label", "configmap", "items", "kosine.dev/pool-"),
        ("label", "configmap", "items", "app.kubernetes.io/managed-by-"),
        ("delete", "configmap", "items"),
        ("patch", "configmap", "items", "--type=merge", "--patch", NO_OWNER),
    ],
    ids=lambda drift: " ".join(drift[:4]),
)
async def test_drift_is_repaired(bench: Bench, drift: tuple[str, ...]) -> None:
    """Edited, emptied, stripped of label or owner, deleted: the next look makes it what was rendered."""
    wanted = bench.config(a="1")
    await bench.apply(wanted)
    bench.namespace.kubectl(*drift)
    await bench.relist()

    assert await bench.apply(wanted) is None
    found = bench.namespace.get("configmap", "items")
    assert found is not None
    assert ({"a": "1"}, LABELS) == (found["data"], found["metadata"]["labels"])
    assert wanted["metadata"]["ownerReferences"] == found["metadata"]["ownerReferences"]


async def test_what_others_added_stays(bench: Bench) -> None:
    """An annotation of somebody else is a difference, and not ours to remove."""
    wanted = bench.config(a="1")
    await bench.apply(wanted)
    bench.namespace.kubectl("annotate", "configmap", "items", "team=search")
    await bench.relist()
    await bench.apply(wanted)

    found = bench.namespace.get("configmap", "items")
    assert found is not None
    assert {"team": "search"} == found["metadata"]["annotations"]
    assert [("ConfigMap", "apply")] == bench.writes


async def test_an_object_of_somebody_else_is_not_taken(bench: Bench) -> None:
    """Its name is taken: that is told, it stays as it is, and everything else is applied."""
    bench.namespace.apply(config_map("items", theirs="yes"))

    assert "NameConflict" == await bench.apply(bench.config(a="1"), bench.config("other", b="2"))
    assert ({"theirs": "yes"}, {"b": "2"}) == (bench.data(), bench.data("other"))


async def test_the_child_of_a_namesake_that_is_gone_is_not_adopted(bench: Bench) -> None:
    """A resource that was deleted and created again waits until the old one's children are collected."""
    await bench.apply(bench.config(a="1"))
    again = bench.child(config_map("items", a="2"), bench.own("again"))

    assert "NameConflict" == await bench.apply(again)
    assert {"a": "1"} == bench.data()


async def test_what_is_refused_holds_up_nothing_else(bench: Bench) -> None:
    """The first reason is told; the rest is applied."""
    bad = bench.child(deployment("items", container("puppet:test"), restartPolicy="Never"))

    assert "Rejected" == await bench.apply(bad, bench.config(a="1"))
    assert {"a": "1"} == bench.data()


async def test_what_people_wrote_is_tried_before_anything_changes(bench: Bench) -> None:
    """A bad pod template leaves everything as it was."""
    bad = bench.child(deployment("items", container("puppet:test"), restartPolicy="Never"))
    failure = await bench.applier.apply((bench.config(a="1"), bad), checked_first=True)

    assert failure is not None
    assert ("InvalidPodTemplate", None) == (failure.reason, bench.data())
    assert "restartPolicy" in failure.message


async def test_only_what_is_ours_and_no_longer_wanted_is_deleted(bench: Bench) -> None:
    """By label and by owner: a label alone is anybody's."""
    kept, dropped = bench.config("kept"), bench.config("dropped")
    await bench.apply(kept, dropped, bench.child(config_map("foreign"), bench.own("other")))
    await bench.relist()
    await bench.applier.prune(bench.key, owner_uid=bench.owner["metadata"]["uid"], keep=(kept,))

    assert (True, None, True) == (
        bench.data("kept") is not None,
        bench.data("dropped"),
        bench.data("foreign") is not None,
    )
    assert ("ConfigMap", "delete") == bench.writes[-1]


async def test_a_stale_picture_deletes_nothing_new(bench: Bench) -> None:
    """What has the name of a child but was created since is another object."""
    await bench.apply(bench.config("dropped"))
    bench.namespace.kubectl("delete", "configmap", "dropped")
    bench.namespace.apply(config_map("dropped", theirs="yes"))
    await bench.applier.prune(bench.key, owner_uid=bench.owner["metadata"]["uid"], keep=())

    assert {"theirs": "yes"} == bench.data("dropped")


async def test_a_stale_picture_overwrites_nothing_new(bench: Bench) -> None:
    """A write names the uid that it means."""
    await bench.apply(bench.config(a="1"))
    bench.namespace.kubectl("delete", "configmap", "items")
    bench.namespace.apply(config_map("items", theirs="yes"))

    with pytest.raises(Conflict):
        await bench.apply(bench.config(a="2"))
    assert {"theirs": "yes"} == bench.data()


async def test_a_pod_is_annotated_once(bench: Bench) -> None:
    """The kubelet is asked to look once per configuration; a pod that is gone is no error."""
    made = pod("items-1", container("puppet:test"))
    made["metadata"]["labels"] |= LABELS
    bench.namespace.apply(made)
    await bench.relist()
    ref = Ref(POD, bench.namespace.name, "items-1")
    for _ in range(3):
        await bench.applier.annotate(ref, {"kosine.dev/configuration": "abc"})

    found = bench.namespace.get("pod", "items-1")
    assert found is not None
    assert "abc" == found["metadata"]["annotations"]["kosine.dev/configuration"]
    assert [("Pod", "annotate")] == bench.writes
    bench.namespace.kubectl("delete", "pod", "items-1", "--grace-period=0", "--force")
    await bench.applier.annotate(ref, {"kosine.dev/configuration": "def"})
