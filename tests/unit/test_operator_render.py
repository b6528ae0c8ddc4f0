"""Laws of rendering, for whatever the CRD admits."""

from __future__ import annotations

import copy
import hashlib
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kosine_operator.pools import Pool, Reason, pool
from kosine_operator.render import Capabilities, Live, Rendered
from tests.kit.crds import Field, fields, schema
from tests.kit.operator_pools import (
    DEFAULTS,
    EXAMPLES,
    NOW,
    a_server,
    an_index,
    configuration_text,
    example_pools,
    manifest,
    pool_for,
    rendered,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL_OF_A_SERVER: dict[str, Any] = {
    "autoscaling": {
        "minReplicas": 2,
        "maxReplicas": 4,
        "targetQueueRows": 16,
        "scaleDownStabilizationSeconds": 60,
        "keda": {"serverAddress": "http://prometheus:9090", "query": "sum(up)"},
    },
    "image": "registry.example/kosine:2",
    "imagePullPolicy": "Always",
    "imagePullSecrets": ["registry"],
    "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
    "gpu": {"count": 1, "resourceName": "amd.com/gpu", "runtimeClassName": "nvidia"},
    "process": {
        "threads": 1,
        "screening": "never",
        "memoryLimit": "1Gi",
        "loadSlots": 1,
        "loadNice": 5,
        "loadSharePercent": 50,
        "maxTimeout": "30s",
        "bodyLimit": "2Mi",
        "maxConnections": 100,
        "drainDelay": "3s",
        "grace": "4s",
    },
    "stores": {
        "s3": {"endpointUrl": "http://minio:9000", "region": "eu-central-1", "anon": False},
        "gcs": {"endpointUrl": "http://gcs:4443", "anon": False},
        "parallel": 4,
        "idleTimeout": "5s",
        "requestTimeout": "1m",
    },
    "credentials": {
        "s3": {"name": "aws", "key": "credentials"},
        "gcs": {"name": "gcp", "key": "key.json"},
        "indexes": {"name": "teams"},
    },
    "cache": {"sizeLimit": "1Gi"},
    "rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"},
    "disruptionBudget": {"maxUnavailable": 1},
    "topologySpread": [{"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}],
    "nodeSelector": {"arch": "amd64"},
    "tolerations": [
        {
            "key": "search",
            "operator": "Equal",
            "value": "yes",
            "effect": "NoExecute",
            "tolerationSeconds": 5,
        }
    ],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "high",
    "podTemplate": {
        "metadata": {"labels": {"team": "search"}, "annotations": {"note": "yes"}},
        "spec": {"hostAliases": []},
    },
    "service": {"type": "ClusterIP", "annotations": {"a": "b"}},
    "httpRoute": {
        "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "https"}],
        "hostnames": ["a.example"],
    },
    "networkPolicy": {"from": [{"namespaceLabels": {"team": "a"}, "podLabels": {"app": "b"}}]},
    "monitoring": {"serviceMonitor": {"interval": "30s", "labels": {"release": "prometheus"}}},
}
ALL_OF_AN_INDEX: dict[str, Any] = {
    "source": {
        "uri": "s3://bucket/items.npy",
        "ids": "s3://bucket/items.ids.npy",
        "masks": {"in_stock": "s3://bucket/in_stock.npy"},
        "credentials": "team-a",
        "layout": "rows",
        "invalidRows": "refuse",
        "checkLayout": True,
    },
    "dim": 8,
    "metric": "cosine",
    "k": 10,
    "maxK": 100,
    "maxQueryRows": 16,
    "history": 4,
    "timeout": "1s",
    "policy": "availability_preserving",
    "required": True,
    "refresh": {"interval": "10s", "watch": True, "settle": "1s", "timeout": "1m"},
    "batch": {"maxRows": 64, "linger": "100us", "queueRows": 128, "queueBytes": "1Mi"},
    "guard": {"dimChange": "refuse", "minRows": 5, "maxShrinkPercent": 5},
    "canary": {
        "maxRowDriftPercent": 5,
        "golden": "s3://bucket/golden.json",
        "minOverlapPercent": 50,
        "overlapK": 5,
        "overlapSample": 50,
    },
    "server": ALL_OF_A_SERVER,
}
OF_THEIR_OWN = {
    "spec.memory",
    "spec.paused",
    "spec.server.cache.claimName",
    "spec.server.replicas",
    "spec.server.serviceAccountName",
    "spec.serverRef.name",
}
"""Not part of what is rendered, excluded by another field, or in need of leave; each has other tests."""


def leaves() -> list[Any]:
    every = [field for field in fields(schema("CosineIndex", "spec"), "spec") if field.is_leaf]
    return [pytest.param(field, id=field.path) for field in every if field.path not in OF_THEIR_OWN]


def rendered_spec(spec: dict[str, Any], *, live: Live | None = None) -> Rendered:
    return rendered(pool_for(an_index("items", spec)), live=live or Live())


def altered(spec: dict[str, Any], field: Field) -> dict[str, Any]:
    """`spec` with another valid value of the field."""
    changed = copy.deepcopy(spec)
    node: Any = changed
    *above, last = field.path.replace("[]", "").split(".")[1:]
    for name in above:
        node = node[name]
        node = node[0] if isinstance(node, list) else node
    node[last] = another(node[last], field.schema)
    return changed


def another(value: Any, told: dict[str, Any]) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(told.get("additionalProperties"), dict):
        return {name: another(each, told["additionalProperties"]) for name, each in value.items()}
    if isinstance(value, dict):
        return {**value, "dnsPolicy": "Default"}
    if isinstance(value, list):
        return [*value, "another"]
    if "enum" in told:
        return next(choice for choice in told["enum"] if choice != value)
    if (number := re.match(r"\d+", value)) is not None:
        return f"{int(number[0]) + 1}{value[number.end() :]}"
    return f"{value}x"


def has(spec: dict[str, Any], field: Field) -> bool:
    node: Any = spec
    for name in field.path.replace("[]", "").split(".")[1:]:
        node = node[0] if isinstance(node, list) else node
        if name not in node:
            return False
        node = node[name]
    return True


@pytest.mark.parametrize("field", leaves())
def test_a_change_takes_what_the_field_says(field: Field) -> None:
    """Hot: the Deployment is the same to the byte, and something else is not. Rollout: it is another."""
    assert has(ALL_OF_AN_INDEX, field), f"{field.path} has no value above"
    before, after = (
        rendered_spec(spec, live=Live(replicas=3))
        for spec in (ALL_OF_AN_INDEX, altered(ALL_OF_AN_INDEX, field))
    )
    same = manifest(before, "Deployment") == manifest(after, "Deployment")
    assert {"Hot": True, "Rollout": False}[field.change or ""] == same
    assert before.manifests != after.manifests


def test_replicas_are_those_of_the_spec() -> None:
    """Without an autoscaler a scaled Deployment goes back; without either there is one pod."""
    for spec, replicas in (({}, 1), ({"replicas": 3}, 3), ({"replicas": 0}, 0)):
        found = rendered_spec({"server": spec}, live=Live(replicas=7))
        assert replicas == manifest(found, "Deployment")["spec"]["replicas"]


@pytest.mark.parametrize(
    ("live", "replicas"),
    [
        pytest.param(Live(), 2, id="a new Deployment begins with the least"),
        pytest.param(Live(replicas=5), 5, id="what runs is kept until the autoscaler has spoken"),
        pytest.param(Live(replicas=0), 2, id="no autoscaler touches zero"),
        pytest.param(Live(replicas=5, replicas_owned=True), None, id="the autoscaler's field is left out"),
    ],
)
def test_an_autoscaler_decides_the_replicas(live: Live, replicas: int | None) -> None:
    """What an autoscaler owns is never applied over it."""
    spec = {"server": {"autoscaling": {"minReplicas": 2, "maxReplicas": 9}}}
    assert replicas == manifest(rendered_spec(spec, live=live), "Deployment")["spec"].get("replicas")


@pytest.mark.parametrize(
    ("server", "memory"),
    [
        ({}, ("2Gi", "2Gi")),
        ({"resources": {"requests": {"cpu": "1"}}}, ("2Gi", "2Gi")),
        ({"resources": {"limits": {"memory": "8Gi"}}}, (None, "8Gi")),
        ({"resources": {"requests": {"memory": "8Gi"}}}, ("8Gi", None)),
        ({"process": {"threads": 1}}, ("2Gi", "2Gi")),
        ({"process": {"memoryLimit": "7Gi"}}, (None, None)),
        ({"gpu": {}}, (None, None)),
    ],
)
def test_the_bound_of_the_administrator_is_for_pods_of_which_nothing_was_said(
    server: dict[str, Any], memory: tuple[str | None, str | None]
) -> None:
    """Request and limit, so that neighbours on a node are safe; whatever is said of it is taken as it is."""
    found = pool_for(an_index("items", {"server": server}))
    made = rendered(found, defaults=replace(DEFAULTS, memory="2Gi"))
    (container,) = manifest(made, "Deployment")["spec"]["template"]["spec"]["containers"]
    resources = container.get("resources", {})
    assert memory == tuple(resources.get(kind, {}).get("memory") for kind in ("requests", "limits"))


@pytest.mark.parametrize(
    ("server", "strategy"),
    [
        ({}, (1, 0)),
        ({"gpu": {}}, (0, 1)),
        ({"cache": {"claimName": "copies"}}, (0, 1)),
        ({"cache": {"sizeLimit": "1Gi"}}, (1, 0)),
        ({"rollingUpdate": {"maxSurge": 0}}, (0, 1)),
        ({"rollingUpdate": {"maxUnavailable": 0}, "gpu": {}}, (1, 0)),
        ({"rollingUpdate": {"maxUnavailable": "50%"}}, (0, "50%")),
        ({"rollingUpdate": {"maxSurge": "0%"}}, ("0%", 1)),
        ({"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}, "gpu": {}}, (2, 1)),
    ],
)
def test_pods_are_replaced_so_that_it_can_go_on(server: dict[str, Any], strategy: tuple[Any, Any]) -> None:
    """A spare pod first, with GPUs or a claim an old one first; never neither."""
    found = manifest(rendered_spec({"server": server}), "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == (found["maxSurge"], found["maxUnavailable"])


def test_every_claim_is_mounted_where_the_configuration_looks() -> None:
    """A pvc:// source is a file below the folder that the service may read, and nothing is writable there."""
    source = {
        "uri": "pvc://rows/a/items.npy",
        "ids": "pvc://ids/items.npy",
        "masks": {"in_stock": "pvc://masks/in_stock.npy"},
    }
    found = rendered_spec({"source": source, "canary": {"golden": "pvc://golden/items.json"}})
    spec = manifest(found, "Deployment")["spec"]["template"]["spec"]
    entry = yaml.safe_load(configuration_text(found))["indexes"]["items"]
    claims = {volume["name"]: volume.get("persistentVolumeClaim") for volume in spec["volumes"]}
    mounted = {
        mount["mountPath"]: (claims[mount["name"]]["claimName"], mount["readOnly"])
        for mount in spec["containers"][0]["volumeMounts"]
        if claims[mount["name"]]
    }
    root = "/var/lib/kosine/claims"
    assert {f"{root}/{name}": (name, True) for name in ("rows", "ids", "masks", "golden")} == mounted
    assert {"in_stock": f"{root}/masks/in_stock.npy"} == entry["masks"]
    assert f"{root}/golden/items.json" == entry["canary"]["golden"]
    assert (f"{root}/rows/a/items.npy", f"{root}/ids/items.npy") == (entry["uri"], entry["ids"])
    assert f'service.file_roots="{root}"' in spec["containers"][0]["args"]


def test_a_new_claim_is_a_rollout_and_another_file_of_it_is_not() -> None:
    """A volume is part of a pod; what is read from it is not."""
    before, same, other = (
        manifest(rendered_spec({"source": {"uri": uri}}), "Deployment")
        for uri in ("pvc://rows/a.npy", "pvc://rows/b.npy", "pvc://others/a.npy")
    )
    assert before == same
    assert before != other


def test_an_index_more_is_no_rollout() -> None:
    """Indexes of a server come and go while its pods run, whatever store they are in."""
    ref = {"serverRef": {"name": "shared"}}
    one, two = an_index("a", ref), an_index("b", {**ref, "source": {"uri": "gs://bucket/b.npy"}})
    alone, both = (rendered(pool_for(one, a_server(), others=others)) for others in ([], [two]))
    assert manifest(alone, "Deployment") == manifest(both, "Deployment")
    assert alone.configuration_hash != both.configuration_hash


@pytest.mark.parametrize(
    "text", ["indexes: [", "- 1", "indexes: 3", "indexes: {a: text}", "indexes: {a: {uri: 3}}", "", None]
)
def test_a_file_that_somebody_spoilt_is_repaired(text: str | None) -> None:
    """Nothing in a live ConfigMap keeps the right one from being rendered."""
    index = an_index("a", {"paused": True})
    found = rendered(pool_for(index), live=Live(configuration=text, unreadable=frozenset({"b"})))
    assert rendered(pool_for(index)).manifests == found.manifests


def test_secrets_are_named_and_never_read() -> None:
    """Each store has its file; a Secret that is not there yet keeps no pod from starting."""
    credentials = {"s3": {"name": "aws"}, "gcs": {"name": "gcp", "key": "key.json"}}
    found = rendered_spec({"server": {"credentials": credentials}})
    spec = manifest(found, "Deployment")["spec"]["template"]["spec"]
    secrets = [volume["secret"] for volume in spec["volumes"] if "secret" in volume]
    assert [{"secretName": "aws", "optional": True}, {"secretName": "gcp", "optional": True}] == secrets
    environment = {each["name"]: each["value"] for each in spec["containers"][0]["env"]}
    folder = "/var/run/kosine/credentials"
    assert f"{folder}/s3/credentials" == environment["AWS_SHARED_CREDENTIALS_FILE"]
    assert f"{folder}/gcs/key.json" == environment["GOOGLE_APPLICATION_CREDENTIALS"]


@pytest.mark.parametrize(
    ("field", "spec", "kind"),
    [
        ("service_monitor", {"monitoring": {"serviceMonitor": {}}}, "ServiceMonitor"),
        ("http_route", {"httpRoute": {"parentRefs": [{"name": "public"}]}}, "HTTPRoute"),
        (
            "scaled_object",
            {"autoscaling": {"maxReplicas": 2, "keda": {"serverAddress": "http://p"}}},
            "ScaledObject",
        ),
    ],
)
def test_what_needs_a_crd_of_others_says_so(field: str, spec: dict[str, Any], kind: str) -> None:
    """Rendered where it can be; refused by name where it cannot, and everything else stands."""
    found = pool_for(an_index("items", {"server": spec}))
    with_crd = rendered(found, capabilities=Capabilities(**{field: True}))
    without = rendered(found, capabilities=Capabilities())
    assert (True, ()) == (kind in {each["kind"] for each in with_crd.manifests}, with_crd.refused)
    assert [(Reason.CRD_NOT_INSTALLED, True)] == [(each.reason, each.optional) for each in without.refused]
    assert [each for each in with_crd.manifests if each["kind"] != kind] == list(without.manifests)


@pytest.mark.parametrize(
    ("server", "kinds"),
    [
        ({}, set()),
        ({"replicas": 1}, set()),
        ({"replicas": 2}, {"PodDisruptionBudget"}),
        ({"autoscaling": {"maxReplicas": 3}}, {"PodDisruptionBudget", "HorizontalPodAutoscaler"}),
        ({"networkPolicy": {}}, {"NetworkPolicy"}),
    ],
)
def test_what_is_not_asked_for_is_not_there(server: dict[str, Any], kinds: set[str]) -> None:
    """One pod has no budget, which could only keep a node from being drained."""
    found = rendered_spec({"server": server})
    assert {"ConfigMap", "Service", "Deployment"} | kinds == {each["kind"] for each in found.manifests}


def test_an_account_must_be_allowed() -> None:
    """Nobody gets the rights of an account of the namespace by naming it; what runs, runs on."""
    found = rendered_spec({"server": {"serviceAccountName": "admin"}})
    assert [Reason.SERVICE_ACCOUNT_NOT_ALLOWED] == [each.reason for each in found.refused]
    assert "Deployment" not in {each["kind"] for each in found.manifests}


def test_paused_and_unreadable_indexes_stay_as_they_are() -> None:
    """Of a shared server the others change; an index that cannot be read is not dropped for it."""
    before = "indexes:\n  a: {uri: s3://old/a.npy}\n  b: {uri: s3://old/b.npy}\n  c: {uri: s3://old/c.npy}\n"
    ref = {"serverRef": {"name": "shared"}}
    a, b = an_index("a", {**ref, "paused": True}), an_index("b", ref)
    found = pool_for(a, a_server(), others=[b])
    live = Live(configuration=before, unreadable=frozenset({"c", "never-served"}))
    entries = yaml.safe_load(configuration_text(rendered(found, live=live)))["indexes"]
    uris = {"a": "s3://old/a.npy", "b": "s3://bucket/b.npy", "c": "s3://old/c.npy"}
    assert uris == {name: entry["uri"] for name, entry in entries.items()}


def test_a_default_index_must_be_one_of_its_own() -> None:
    """The service refuses a file whose default is not in it; so it is left out, and said."""
    server = a_server("shared", {"defaultIndex": "gone"})
    found = rendered(pool_for(an_index("a", {"serverRef": {"name": "shared"}}), server))
    assert "default_index" not in configuration_text(found)
    assert [(Reason.DEFAULT_INDEX_NOT_FOUND, True)] == [
        (each.reason, each.optional) for each in found.refused
    ]


names = st.from_regex(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?", fullmatch=True)
uris = st.sampled_from(["s3://bucket/a.npy", "gs://bucket/a.npy", "pvc://one/a.npy", "pvc://two/b.npy"])


@st.composite
def specs(draw: st.DrawFn, whole: dict[str, Any] = ALL_OF_AN_INDEX) -> dict[str, Any]:
    """Any part of everything that can be said of an index."""
    spec = {key: value for key, value in whole.items() if key == "source" or draw(st.booleans())}
    if "server" in spec:
        spec["server"] = {key: value for key, value in whole["server"].items() if draw(st.booleans())}
    return {**spec, "source": {"uri": draw(uris)}}


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    """A dedicated pool, or a shared one of some indexes."""
    if draw(st.booleans()):
        return pool_for(an_index(draw(names), draw(specs())))
    every = [
        an_index(
            name, {**{k: v for k, v in draw(specs()).items() if k != "server"}, "serverRef": {"name": "s"}}
        )
        for name in draw(
            st.lists(names.filter(lambda name: name != "s"), min_size=1, max_size=5, unique=True)
        )
    ]
    return pool_for(every[0], a_server("s", draw(specs()).get("server", {})), others=every[1:])


def label_values(node: Any) -> Iterator[str]:
    for key, value in node.items() if isinstance(node, dict) else ():
        if key in {"labels", "matchLabels"}:
            yield from value.values()
        else:
            yield from label_values(value)
    for item in node if isinstance(node, list) else ():
        yield from label_values(item)


@settings(max_examples=60, deadline=None)
@given(pools())
def test_rendering_is_deterministic_and_consistent(found: Pool) -> None:
    """Same bytes twice; names and labels that Kubernetes takes; selectors that match; a hash of the file."""
    one, two = rendered(found), rendered(found)
    assert yaml.safe_dump_all(one.manifests) == yaml.safe_dump_all(two.manifests)
    assert hashlib.sha256(configuration_text(one).encode()).hexdigest() == one.configuration_hash

    keys = [(each["kind"], each["metadata"]["name"]) for each in one.manifests]
    assert len(set(keys)) == len(keys)
    for each in one.manifests:
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", each["metadata"]["name"])
        assert found.key.namespace == each["metadata"]["namespace"]
        assert all(
            re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", v) for v in label_values(each)
        )
    deployment = manifest(one, "Deployment")["spec"]
    assert (
        deployment["selector"]["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()
    )
    services = [each["spec"]["selector"] for each in one.manifests if each["kind"] == "Service"]
    assert all(selector == deployment["selector"]["matchLabels"] for selector in services)


@settings(max_examples=40, deadline=None)
@given(pools())
def test_what_is_not_of_an_index_is_of_the_pool(found: Pool) -> None:
    """Pruning by the label of the pool finds all but the Services of indexes, whose owner they name."""
    for each in rendered(found).manifests:
        (owner,) = each["metadata"]["ownerReferences"]
        labels = each["metadata"]["labels"]
        if labels.get("kosine.dev/pool") == found.key.label:
            assert (found.owner.kind, found.owner.uid) == (owner["kind"], owner["uid"])
        else:
            assert ("Service", "CosineIndex") == (each["kind"], owner["kind"])
            assert each["metadata"]["name"] == labels["kosine.dev/index"] == owner["name"]


@settings(max_examples=40, deadline=None)
@given(pools())
def test_pods_are_restricted(found: Pool) -> None:
    """Every rendered pod passes the restricted Pod Security Standard, has no token and a read-only root."""
    spec = manifest(rendered(found), "Deployment")["spec"]["template"]["spec"]
    assert False is spec["automountServiceAccountToken"]
    assert (True, "RuntimeDefault") == (
        spec["securityContext"]["runAsNonRoot"],
        spec["securityContext"]["seccompProfile"]["type"],
    )
    for container in spec["containers"]:
        security = container["securityContext"]
        assert (False, ["ALL"]) == (security["allowPrivilegeEscalation"], security["capabilities"]["drop"])
        assert security["readOnlyRootFilesystem"]
    kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}


def test_the_order_of_indexes_does_not_matter() -> None:
    """Whatever order the API server lists them in, the file is the same."""
    every = [an_index(name, {"serverRef": {"name": "s"}}) for name in "cab"]
    server = a_server("s")
    key = pool_for(every[0], server).key
    texts = {
        configuration_text(rendered(found))
        for order in (every, every[::-1], sorted(every, key=lambda index: index.metadata.name))
        if (found := pool(key, order, [server], now=NOW)) is not None
    }
    assert 1 == len(texts)


def test_examples_show_everything() -> None:
    """Every kind that can be rendered is rendered by an example."""
    found = [rendered(each) for path in EXAMPLES.glob("*.yaml") for each in example_pools(path)]
    kinds = {each["kind"] for one in found for each in one.manifests}
    everything = {each["kind"] for each in rendered_spec(ALL_OF_AN_INDEX).manifests}
    assert everything | {"HorizontalPodAutoscaler"} == kinds
