"""What the operator may do and what it meets: its rights in one namespace and in all, and CRDs of others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.kit.control_plane.cluster import until
from tests.kit.control_plane.manifests import role
from tests.kit.operator_process import operator_process
from tests.kit.other_crds import OTHER_CRDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.control_plane.cluster import Namespace
    from tests.kit.operator_world import World

RULES = yaml.safe_load(
    (Path(__file__).parents[2] / "charts/kosine-operator/files/rbac-rules.yaml").read_bytes()
)
OF_OTHERS = "servicemonitors,httproutes,scaledobjects"
ALL_OF_OTHERS = ["HTTPRoute", "ScaledObject", "ServiceMonitor"]


@pytest.fixture
def other_crds(namespace: Namespace) -> Iterator[None]:
    """The cluster has them for the time of a test."""
    names = [each["metadata"]["name"] for each in OTHER_CRDS]
    namespace.kubectl("create", "-f", "-", stdin=json.dumps(_list_of(OTHER_CRDS)))
    namespace.kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in names))
    yield
    namespace.kubectl("delete", "--timeout=60s", "crd", *names)


def _list_of(items: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": list(items)}


@pytest.mark.parametrize("cluster_wide", [False, True], ids=["namespaced", "cluster-wide"])
@pytest.mark.usefixtures("other_crds")
def test_rights_used_are_rights_granted(world: World, cluster_wide: bool) -> None:
    """Through create, hot change, growth, and every kind of child coming and going: 0 denied, 0 unused."""
    namespace = world.namespace
    rules = [*RULES["rules"], *RULES["optional"]]
    namespace.apply(
        *role("kosine-operator", "default", rules, cluster_wide=namespace.name if cluster_wide else None)
    )
    namespace.apply(*role("kosine-operator-lease", "default", RULES["lease"]))
    lease = ("--lease", f"{namespace.name}/operator")
    kubeconfig = namespace.seen_by("default").kubeconfig
    with operator_process(namespace, *lease, kubeconfig=kubeconfig, cluster_wide=cluster_wide):
        a_life_of_everything(world)

    user = f"system:serviceaccount:{namespace.name}:default"
    asked = [
        each
        for each in namespace.plane.requests()
        # Namespaces of other tests may be on their way out, where nothing can be created any more.
        if each.user == user and not each.resource.startswith("/") and each.namespace in ("", namespace.name)
    ]
    assert [] == [each for each in asked if each.status == 403]
    used = {(each.group, each.resource, each.verb) for each in asked}
    used |= {(each.group, each.resource, "create") for each in asked if each.status == 201}
    assert granted([*rules, *RULES["lease"]]) == used


def granted(rules: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Group, resource and verb."""
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def a_life_of_everything(world: World) -> None:
    """Two indexes and a server: made, changed, grown, shrunk, moved."""
    apply = world.namespace.apply
    world.publish("items")
    full = {"replicas": 2, "networkPolicy": {}}
    apply(world.server("shared", **full), world.index("items", server="shared"))
    world.ready("items")
    apply(world.index("items", server="shared", k=2))
    world.ready("items")
    apply(world.index("other", server={"autoscaling": {"minReplicas": 1, "maxReplicas": 2}}))
    until(lambda: world.namespace.get("horizontalpodautoscaler", "other"), what="an autoscaler")
    apply(world.index("other", server=exposed()))
    until(lambda: kinds_of_others(world) == ALL_OF_OTHERS, what="all of them")
    apply(world.index("other", server={"replicas": 0}), world.server("shared", replicas=1))
    gone = f"horizontalpodautoscalers,networkpolicies,poddisruptionbudgets,{OF_OTHERS}"
    until(lambda: not world.namespace.list(gone), what="what is no longer asked for is deleted")
    world.publish("other")
    patch = {"spec": {"server": None, "serverRef": {"name": "shared"}}}
    world.namespace.kubectl("patch", "cosineindex", "other", "--type=merge", "-p", json.dumps(patch))
    until(lambda: not world.namespace.get("configmap", "other"), what="moved", within=120)


def exposed() -> dict[str, Any]:
    """Everything that needs a CRD of somebody else."""
    return {
        "monitoring": {"serviceMonitor": {"interval": "15s", "labels": {"release": "prometheus"}}},
        "httpRoute": {
            "parentRefs": [{"name": "public", "namespace": "gateways"}],
            "hostnames": ["a.example"],
        },
        "autoscaling": {"maxReplicas": 2, "keda": {"serverAddress": "http://prometheus:9090"}},
    }


def kinds_of_others(world: World) -> list[str]:
    """Objects of their kinds that were made."""
    return sorted(found["kind"] for found in world.namespace.list(OF_OTHERS))


def test_crds_of_others_are_used_once_they_are_there(world: World, request: pytest.FixtureRequest) -> None:
    """Without them the index is served and says what is missing; nothing has to be restarted for them."""
    with operator_process(world.namespace, "--resync", "1") as operator:
        world.namespace.apply(world.index("items", server=exposed()))
        missing = world.condition("items", "Degraded", "True")
        assert "CRDNotInstalled" == missing["reason"]
        assert "True" == world.condition("items", "Accepted", "True")["status"]

        request.getfixturevalue("other_crds")
        until(lambda: kinds_of_others(world) == ALL_OF_OTHERS, what="all of them")
        until(
            lambda: world.status("items")["conditions"] and reason(world, "Degraded") != "CRDNotInstalled",
            what="nothing is missing any more",
        )
        assert [] == operator.events("reconcile_failed")


def reason(world: World, kind: str) -> str:
    """Of a condition of the index."""
    return str(next(each["reason"] for each in world.status("items")["conditions"] if each["type"] == kind))


def test_cluster_wide_every_namespace_is_worked_in(world: World) -> None:
    """One that is made later included; a namespaced operator leaves others alone."""
    elsewhere = f"{world.namespace.name}-more"
    with operator_process(world.namespace, cluster_wide=True):
        world.namespace.kubectl("create", "namespace", elsewhere)
        other = replace(world, namespace=replace(world.namespace, name=elsewhere))
        for each in (world, other):
            each.namespace.apply(each.podless("items"))
        until(lambda: all(each.is_settled("items") for each in (world, other)), what="both settled")
    with operator_process(world.namespace, name="namespaced"):
        for each in (world, other):
            each.namespace.apply(each.podless("users"))
        until(lambda: world.is_settled("users"), what="settled where it works")
        assert [] == other.children("users")
    world.namespace.kubectl("delete", "namespace", elsewhere, "--wait=false")
