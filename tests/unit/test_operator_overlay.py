"""`podTemplate`: what it adds, what it cannot take away, and what it must not say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosine_operator.pools import Reason
from kosine_operator.render.overlay import merged
from tests.kit.operator_pools import an_index, manifest, pool_for, rendered

FIELDS = st.sampled_from(
    [
        "containers",
        "env",
        "image",
        "name",
        "ports",
        "projected",
        "securityContext",
        "sources",
        "volumes",
        "dnsPolicy",
    ]
)
SIDECAR = {"name": "proxy", "image": "registry.example/proxy:1"}


def overlaid(**template: Any) -> Any:
    return rendered(pool_for(an_index("items", {"server": {"podTemplate": template}})))


def pod_of(**spec: Any) -> dict[str, Any]:
    found: dict[str, Any] = manifest(overlaid(spec=spec), "Deployment")["spec"]["template"]["spec"]
    return found


def test_what_has_a_name_is_merged_by_it() -> None:
    """An environment variable more for the service, a sidecar beside it, a volume for both."""
    spec = pod_of(
        containers=[
            {
                "name": "kosine",
                "env": [{"name": "TZ", "value": "UTC"}, {"name": "HOME", "value": "/home"}],
                "volumeMounts": [{"name": "extra", "mountPath": "/extra"}],
            },
            SIDECAR,
        ],
        volumes=[{"name": "extra", "emptyDir": {}}],
    )
    service, sidecar = spec["containers"]
    assert ({"HOME": "/home", "TZ": "UTC"}, "proxy") == (
        {each["name"]: each["value"] for each in service["env"]},
        sidecar["name"],
    )
    assert {"/etc/kosine", "/extra"} <= {each["mountPath"] for each in service["volumeMounts"]}
    assert {"configuration", "tmp", "extra"} == {each["name"] for each in spec["volumes"]}


def test_a_sidecar_is_as_restricted_as_the_service() -> None:
    """Its security context is not its own to choose."""
    service, sidecar = pod_of(containers=[SIDECAR])["containers"]
    assert service["securityContext"] == sidecar["securityContext"]


def test_labels_that_select_pods_cannot_be_overwritten() -> None:
    """The overlay adds labels; ours win."""
    found = overlaid(metadata={"labels": {"team": "search", "kosine.dev/pool": "another"}})
    template = manifest(found, "Deployment")["spec"]["template"]
    assert ("search", "cosineindex.items") == (
        template["metadata"]["labels"]["team"],
        template["metadata"]["labels"]["kosine.dev/pool"],
    )


@pytest.mark.parametrize(
    ("base", "overlay", "expected"),
    [
        ({"a": 1, "b": {"c": 1}}, {"b": {"d": 2}}, {"a": 1, "b": {"c": 1, "d": 2}}),
        ([{"name": "a", "x": 1}], [{"name": "a", "y": 2}], [{"name": "a", "x": 1, "y": 2}]),
        ([{"name": "a"}], [{"name": "b"}], [{"name": "a"}, {"name": "b"}]),
        ([{"key": "a"}], [{"key": "b"}], [{"key": "b"}]),
        ([1, 2], [3], [3]),
        ({"a": 1}, None, None),
    ],
)
def test_merging(base: Any, overlay: Any, expected: Any) -> None:
    """Maps by key, lists of named items by name, anything else is replaced."""
    assert expected == merged(base, overlay)


REFUSED = [
    ({"hostNetwork": True}, "podTemplate.spec.hostNetwork"),
    ({"hostPID": False}, "podTemplate.spec.hostPID"),
    ({"serviceAccountName": "admin"}, "podTemplate.spec.serviceAccountName"),
    ({"automountServiceAccountToken": True}, "podTemplate.spec.automountServiceAccountToken"),
    ({"nodeName": "control-plane"}, "podTemplate.spec.nodeName"),
    ({"ephemeralContainers": []}, "podTemplate.spec.ephemeralContainers"),
    ({"securityContext": {"runAsNonRoot": False}}, "podTemplate.spec.securityContext.runAsNonRoot"),
    ({"securityContext": {"runAsUser": 0}}, "podTemplate.spec.securityContext.runAsUser"),
    ({"securityContext": {"sysctls": []}}, "podTemplate.spec.securityContext.sysctls"),
    ({"securityContext": []}, "podTemplate.spec.securityContext"),
    ({"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}, "podTemplate.spec.volumes[0].hostPath"),
    ({"volumes": "all"}, "podTemplate.spec.volumes"),
    (
        {"volumes": [{"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]},
        "podTemplate.spec.volumes[0].projected.sources[0].serviceAccountToken",
    ),
    (
        {"containers": [{"name": "kosine", "securityContext": {"privileged": True}}]},
        "podTemplate.spec.containers[0].securityContext",
    ),
    ({"containers": [{**SIDECAR, "securityContext": {}}]}, "podTemplate.spec.containers[0].securityContext"),
    (
        {"initContainers": [{**SIDECAR, "volumeDevices": []}]},
        "podTemplate.spec.initContainers[0].volumeDevices",
    ),
    ({"containers": [{"name": "kosine", "command": ["sh"]}]}, "podTemplate.spec.containers[0].command"),
    ({"containers": [{"name": "kosine", "args": ["demo"]}]}, "podTemplate.spec.containers[0].args"),
    ({"containers": [{"name": "kosine", "image": "other"}]}, "podTemplate.spec.containers[0].image"),
    ({"containers": [{"image": "nameless"}]}, "podTemplate.spec.containers[0].name"),
    ({"containers": ["kosine"]}, "podTemplate.spec.containers[0]"),
    ({"containers": {"name": "kosine"}}, "podTemplate.spec.containers"),
    (
        {"containers": [{**SIDECAR, "ports": [{"containerPort": 80, "hostPort": 80}]}]},
        "podTemplate.spec.containers[0].ports[0].hostPort",
    ),
]


@pytest.mark.parametrize(("spec", "path"), REFUSED, ids=[path for _, path in REFUSED])
def test_what_would_widen_the_pod_is_refused_by_its_path(spec: dict[str, Any], path: str) -> None:
    """Nothing runs with more than the service has; and what runs already is left alone."""
    found = overlaid(spec=spec)
    (refusal,) = found.refused
    assert (Reason.INVALID_POD_TEMPLATE, False) == (refusal.reason, refusal.optional)
    assert refusal.message.startswith((f"{path} ", f"{path}:"))
    assert "Deployment" not in {each["kind"] for each in found.manifests}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(FIELDS, below, max_size=3),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(FIELDS, anything, max_size=4))
def test_whatever_it_says_is_rendered_or_refused(spec: dict[str, Any]) -> None:
    """The API server admits any mapping here; none of them is a defect of the operator."""
    found = overlaid(spec=spec)
    kinds = {each["kind"] for each in found.manifests}
    assert ("Deployment" in kinds) == (not found.refused)
