"""The CRDs before a real API server: what it admits, what it refuses and where it says the fault is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kosine_operator.pools import acceptance, pool, pool_of
from kosine_operator.resources import parse_index, parse_server
from kosine_operator.status import IndexReport, LoadFailure, Observed, PodReport, index_status
from tests.kit.control_plane.cluster import CommandFailed, Namespace
from tests.kit.crds import KINDS
from tests.kit.golden_manifests import GOLDEN
from tests.kit.hostile_uris import GOOD_OBJECTS, HOSTILE
from tests.kit.operator_pools import EXAMPLES, NOW, rendered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.control_plane.access import Answer
    from tests.kit.control_plane.control_plane import ControlPlane

URI = {"uri": "s3://bucket/items.npy"}
AUTOSCALED = {"autoscaling": {"maxReplicas": 3}}
LONG = "a" * 2000
OF_OTHERS = {"monitoring.coreos.com", "gateway.networking.k8s.io", "keda.sh"}
"""Groups whose CRDs this cluster does not have."""


@pytest.fixture(scope="module")
def shared_namespace(plane: ControlPlane) -> Iterator[Namespace]:
    """For whatever stores nothing."""
    made = Namespace("crds", plane, plane.files.kubeconfig)
    made.kubectl("create", "namespace", made.name)
    made.kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=60s")
    yield made
    made.kubectl("delete", "namespace", made.name, "--wait=false")


def created(namespace: Namespace, kind: str, spec: dict[str, Any], *, name: str = "items") -> Answer:
    """What the API server says to it; nothing is stored."""
    manifest = {
        "apiVersion": "kosine.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace.name},
        "spec": spec,
    }
    path = f"/apis/kosine.dev/v1alpha1/namespaces/{namespace.name}/{KINDS[kind]}"
    return namespace.plane.admin.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", manifest)


def causes(answer: Answer) -> dict[str, str]:
    """Messages by the path of the field."""
    told = answer.body.get("details", {}).get("causes", [])
    return {cause.get("field", ""): cause["message"] for cause in told}


SHARED = {"serverRef": {"name": "shared"}}


def an_index(**spec: Any) -> dict[str, Any]:
    return {"source": URI, **spec}


BAD_INDEXES: list[tuple[dict[str, Any], str]] = [
    ({}, "spec.source"),
    ({"source": {}}, "spec.source.uri"),
    ({"source": {"uri": ""}}, "spec.source.uri"),
    ({"source": {"uri": f"s3://bucket/{LONG}"}}, "spec.source.uri"),
    ({"source": {"uri": "pvc://Claim/a.npy"}}, "spec.source.uri"),
    ({"source": {"uri": "pvc://claim"}}, "spec.source.uri"),
    ({"source": {"uri": "pvc://claim/../other/a.npy"}}, "spec.source.uri"),
    ({"source": {"uri": "pvc://../a.npy"}}, "spec.source.uri"),
    ({"source": {"uri": "s3://127.0.0.1/a.npy"}}, "spec.source.uri"),
    ({"source": {"uri": "gs://10.0.0.1/a.npy"}}, "spec.source.uri"),
    ({"source": {"uri": "s3://bucket.-x/a.npy"}}, "spec.source.uri"),
    ({"source": {**URI, "ids": "file:///etc/passwd"}}, "spec.source.ids"),
    ({"source": {**URI, "masks": {"in_stock": "file:///etc/passwd"}}}, "spec.source.masks[in_stock]"),
    ({"source": {**URI, "masks": {"In Stock": "s3://bucket/m.npy"}}}, "spec.source.masks"),
    (
        {"source": {**URI, "masks": {f"m{each}": "s3://bucket/m.npy" for each in range(17)}}},
        "spec.source.masks",
    ),
    ({"source": {"uri": "s3://bucket/a.json", "masks": {"a": "s3://bucket/m.npy"}}}, "spec.source.masks"),
    ({"source": {"uri": "s3://bucket/items.json", "ids": "s3://bucket/ids.npy"}}, "spec.source.ids"),
    ({"source": {**URI, "layout": "diagonal"}}, "spec.source.layout"),
    ({"source": {**URI, "credentials": "../key"}, **SHARED}, "spec.source.credentials"),
    ({"source": {**URI, "credentials": "..data"}, **SHARED}, "spec.source.credentials"),
    ({"source": {"uri": "pvc://claim/a.npy", "credentials": "key"}, **SHARED}, "spec.source.credentials"),
    ({"source": {**URI, "credentials": "key"}}, "spec.source.credentials"),
    ({"source": {**URI, "credentials": "key"}, "server": {"credentials": {}}}, "spec.source.credentials"),
    ({"source": {**URI, "layout": "transposed"}}, "spec.dim"),
    (an_index(dim=0), "spec.dim"),
    (an_index(dim=65537), "spec.dim"),
    (an_index(dim="3"), "spec.dim"),
    (an_index(metric="euclidean"), "spec.metric"),
    (an_index(k=0), "spec.k"),
    (an_index(k=2000), "spec.k"),
    (an_index(maxK=5), "spec.k"),
    (an_index(k=20, maxK=10), "spec.k"),
    (an_index(timeout="61s"), "spec.timeout"),
    (an_index(timeout="0s"), "spec.timeout"),
    (an_index(timeout="1h30m"), "spec.timeout"),
    (an_index(timeout=2), "spec.timeout"),
    (an_index(policy="drop"), "spec.policy"),
    (an_index(refresh={"interval": "1d"}), "spec.refresh.interval"),
    (an_index(refresh={"interval": "999ms"}), "spec.refresh.interval"),
    (an_index(refresh={"settle": "11s"}), "spec.refresh.settle"),
    (an_index(batch={"maxRows": 4097}), "spec.batch.maxRows"),
    (an_index(batch={"queueRows": 100}), "spec.batch.maxRows"),
    (an_index(batch={"linger": "2ms"}), "spec.batch.linger"),
    (an_index(batch={"queueBytes": "1Ki"}), "spec.batch.queueBytes"),
    (an_index(batch={"queueBytes": "64MB"}), "spec.batch.queueBytes"),
    (an_index(guard={"maxShrinkPercent": 101}), "spec.guard.maxShrinkPercent"),
    (an_index(history=33), "spec.history"),
    (an_index(canary={"maxRowDriftPercent": -1}), "spec.canary.maxRowDriftPercent"),
    (an_index(canary={"golden": "https://host/golden.json"}), "spec.canary.golden"),
    (an_index(canary={"golden": "s3://bucket/golden.npy"}), "spec.canary.golden"),
    (an_index(canary={"minOverlapPercent": 101}), "spec.canary.minOverlapPercent"),
    (an_index(canary={"overlapSample": 0}), "spec.canary.overlapSample"),
    (an_index(canary={"golden": "s3://b-1/g.json"}, policy="resource_preserving"), "spec.policy"),
    (an_index(canary={"minOverlapPercent": 1}, policy="resource_preserving"), "spec.policy"),
    (an_index(memory="1"), "spec.memory"),
    (an_index(serverRef={}), "spec.serverRef.name"),
    (an_index(serverRef={"name": "../x"}), "spec.serverRef.name"),
    (an_index(serverRef={"name": "shared"}, server={}), "spec.serverRef"),
    (an_index(server={"replicas": -1}), "spec.server.replicas"),
    (an_index(server={"replicas": 1, **AUTOSCALED}), "spec.server.replicas"),
]
BAD_SERVERS: list[tuple[dict[str, Any], str]] = [
    ({"replicas": 1001}, "spec.replicas"),
    ({"replicas": 2, **AUTOSCALED}, "spec.replicas"),
    ({"autoscaling": {}}, "spec.autoscaling.maxReplicas"),
    ({"autoscaling": {"minReplicas": 4, "maxReplicas": 3}}, "spec.autoscaling.minReplicas"),
    ({"autoscaling": {"minReplicas": 0, "maxReplicas": 3}}, "spec.autoscaling.minReplicas"),
    (
        {"autoscaling": {"maxReplicas": 3, "keda": {"serverAddress": "prometheus"}}},
        "spec.autoscaling.keda.serverAddress",
    ),
    ({"image": "two words"}, "spec.image"),
    ({"imagePullPolicy": "Sometimes"}, "spec.imagePullPolicy"),
    ({"imagePullSecrets": ["a", "a"]}, "spec.imagePullSecrets[1]"),
    ({"resources": {"limits": {"memory": "lots"}}}, "spec.resources.limits.memory"),
    ({"gpu": {"count": 0}}, "spec.gpu.count"),
    ({"gpu": {"resourceName": "gpu"}}, "spec.gpu.resourceName"),
    ({"process": {"threads": 0}}, "spec.process.threads"),
    ({"process": {"memoryLimit": "1Mi"}}, "spec.process.memoryLimit"),
    ({"process": {"grace": "2h"}}, "spec.process.grace"),
    ({"stores": {"s3": {"endpointUrl": "http://user:secret@minio"}}}, "spec.stores.s3.endpointUrl"),
    ({"stores": {"s3": {"endpointUrl": "file:///etc"}}}, "spec.stores.s3.endpointUrl"),
    ({"credentials": {"s3": {}}}, "spec.credentials.s3.name"),
    ({"credentials": {"s3": {"name": "a", "key": "../token"}}}, "spec.credentials.s3.key"),
    ({"credentials": {"indexes": {"name": "Teams"}}}, "spec.credentials.indexes.name"),
    ({"stores": {"parallel": 65}}, "spec.stores.parallel"),
    ({"stores": {"idleTimeout": "10ms"}}, "spec.stores.idleTimeout"),
    ({"stores": {"requestTimeout": "2h"}}, "spec.stores.requestTimeout"),
    ({"cache": {"sizeLimit": "1Ki"}}, "spec.cache.sizeLimit"),
    ({"cache": {"sizeLimit": "1Gi", "claimName": "copies"}}, "spec.cache.sizeLimit"),
    ({"cache": {"claimName": "../copies"}}, "spec.cache.claimName"),
    ({"cache": {"claimName": "copies"}, "replicas": 2}, "spec.cache"),
    ({"cache": {"claimName": "copies"}, **AUTOSCALED}, "spec.cache"),
    ({"rollingUpdate": {"maxSurge": "200%"}}, "spec.rollingUpdate.maxSurge"),
    ({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}, "spec.rollingUpdate"),
    ({"disruptionBudget": {"maxUnavailable": "all"}}, "spec.disruptionBudget.maxUnavailable"),
    ({"topologySpread": [{"maxSkew": 1}]}, "spec.topologySpread[0].topologyKey"),
    ({"tolerations": [{}] * 17}, "spec.tolerations"),
    ({"nodeSelector": {str(number): "" for number in range(17)}}, "spec.nodeSelector"),
    ({"service": {"type": "ExternalName"}}, "spec.service.type"),
    ({"httpRoute": {"parentRefs": []}}, "spec.httpRoute.parentRefs"),
    ({"httpRoute": {"parentRefs": [{"name": "a"}], "hostnames": ["a b"]}}, "spec.httpRoute.hostnames[0]"),
    ({"monitoring": {"serviceMonitor": {"interval": "10ms"}}}, "spec.monitoring.serviceMonitor.interval"),
    ({"indexMemoryLimit": "1k"}, "spec.indexMemoryLimit"),
    ({"defaultIndex": ""}, "spec.defaultIndex"),
]


def cases(corpus: list[tuple[dict[str, Any], str]], kind: str) -> list[Any]:
    return [
        pytest.param(kind, spec, path, id=f"{kind}-{number}-{path}")
        for number, (spec, path) in enumerate(corpus)
    ]


@pytest.mark.parametrize(
    ("kind", "spec", "path"), cases(BAD_INDEXES, "CosineIndex") + cases(BAD_SERVERS, "CosineServer")
)
def test_what_is_wrong_is_refused_by_its_path(
    shared_namespace: Namespace, kind: str, spec: dict[str, Any], path: str
) -> None:
    """422, with the path of the field and what is expected there."""
    answer = created(shared_namespace, kind, spec)
    found = causes(answer)
    assert (422, True) == (answer.status, path in found), found
    assert found[path]


@pytest.mark.parametrize("uri", HOSTILE)
def test_a_hostile_source_is_refused(shared_namespace: Namespace, uri: str) -> None:
    """Whatever could lead anywhere else than to one object never gets into the cluster."""
    answer = created(shared_namespace, "CosineIndex", {"source": {"uri": uri}})
    assert (422, True) == (answer.status, "spec.source.uri" in causes(answer))


@pytest.mark.parametrize("uri", [*GOOD_OBJECTS, "pvc://claim/a.npy", "pvc://a-1/b/c/items.json"])
def test_a_good_source_is_taken(shared_namespace: Namespace, uri: str) -> None:
    """What the service takes, and claims."""
    assert 201 == created(shared_namespace, "CosineIndex", {"source": {"uri": uri}}).status


@pytest.mark.parametrize("name", ["a" * 51, "1a", "a.b"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_name_must_be_one_of_a_service(shared_namespace: Namespace, kind: str, name: str) -> None:
    """And fit into a label beside the kind."""
    answer = created(shared_namespace, kind, {"source": URI} if kind == "CosineIndex" else {}, name=name)
    assert (422, True) == (answer.status, "begins with a letter" in answer.body["message"])


def test_a_field_that_does_not_exist_is_refused(shared_namespace: Namespace) -> None:
    """A typo does not vanish silently."""
    answer = created(shared_namespace, "CosineIndex", an_index(refersh={"interval": "1m"}))
    assert (400, True) == (answer.status, 'unknown field "spec.refersh"' in answer.body["message"])


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_are_taken(shared_namespace: Namespace, path: Path) -> None:
    """Strictly, and as the operator's types read them: the API server adds no default they do not know."""
    for example in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        answer = created(shared_namespace, example["kind"], example["spec"], name=example["metadata"]["name"])
        assert 201 == answer.status, answer.body
        parse = parse_index if example["kind"] == "CosineIndex" else parse_server
        metadata = answer.body["metadata"]
        assert parse({**example, "metadata": metadata}).spec == parse(answer.body).spec


def golden_manifests() -> list[dict[str, Any]]:
    """Those of Kubernetes' own kinds."""
    every = [each for path in sorted(GOLDEN.glob("*.yaml")) for each in yaml.safe_load_all(path.read_bytes())]
    return [each for each in every if each["apiVersion"].split("/")[0] not in OF_OTHERS]


def test_what_is_rendered_is_taken(shared_namespace: Namespace) -> None:
    """Strictly, to the last field."""
    for each in golden_manifests():
        each["metadata"]["namespace"] = shared_namespace.name
        shared_namespace.kubectl(
            *("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-"),
            stdin=yaml.dump(each),
        )


def test_pods_are_restricted(shared_namespace: Namespace) -> None:
    """Rendered pods are admitted where the restricted Pod Security Standard is enforced."""
    enforced = "pod-security.kubernetes.io/enforce=restricted"
    shared_namespace.kubectl("label", "namespace", shared_namespace.name, enforced)
    templates = [each["spec"]["template"] for each in golden_manifests() if each["kind"] == "Deployment"]
    for template in templates:
        # Classes of a cluster that these tests do not have.
        spec = {key: value for key, value in template["spec"].items() if not key.endswith("ClassName")}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": spec}
        shared_namespace.kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.dump(pod))


def test_a_dimension_cannot_be_changed(namespace: Namespace) -> None:
    """Neither to another value nor to none; setting it later is allowed."""
    namespace.apply(stored(namespace, "CosineIndex", {"source": URI}))
    namespace.kubectl("patch", "cidx", "items", "--type=merge", '--patch={"spec":{"dim":3}}')
    for value in ("4", "null"):
        with pytest.raises(CommandFailed, match=r"spec\.dim: .*cannot be changed"):
            namespace.kubectl(
                "patch", "cidx", "items", "--type=merge", f'--patch={{"spec":{{"dim":{value}}}}}'
            )


def test_a_status_is_taken_and_writes_nothing_twice(namespace: Namespace) -> None:
    """Every field of it is declared, and the same status applied again keeps the resource version."""
    namespace.apply(stored(namespace, "CosineIndex", {"source": URI}))
    index = parse_index(namespace.get("cosineindex", "items") or {})
    found = pool(pool_of(index), [index], [], now=NOW)
    assert found is not None
    failure = LoadFailure(code="source_missing", detail="x" * 5000, at=NOW)
    report = IndexReport(
        state="available", version="v1", rows=1, dim=2, bytes=8, loaded_at=NOW, last_error=failure
    )
    status = index_status(
        index,
        pool=found,
        acceptance=acceptance(index, found),
        rendered=rendered(found),
        observed=Observed(now=NOW, pods=(PodReport(pod="items-0", ready=True, indexes={"items": report}),)),
        previous=None,
    )
    path = f"/apis/kosine.dev/v1alpha1/namespaces/{namespace.name}/cosineindexes/items/status"
    applied = {**stored(namespace, "CosineIndex", {}), "status": status}
    del applied["spec"]
    answers = [
        namespace.plane.admin.request(
            "PATCH",
            f"{path}?fieldManager=kosine-operator&force=true",
            applied,
            content_type="application/apply-patch+yaml",
        )
        for _ in range(2)
    ]
    assert [200, 200] == [answer.status for answer in answers], answers
    assert status == answers[0].body["status"]
    assert 1 == len({answer.body["metadata"]["resourceVersion"] for answer in answers})


def test_kubectl_scales_and_shows(namespace: Namespace) -> None:
    """Short names, the category, columns and the scale subresource; an autoscaler keeps hands off."""
    namespace.apply(
        stored(namespace, "CosineIndex", {"source": URI, "server": {"replicas": 1}}),
        stored(namespace, "CosineServer", AUTOSCALED, name="shared"),
    )
    namespace.kubectl("scale", "cidx/items", "--replicas=3")
    found = namespace.get("cosineindex", "items")
    assert found is not None
    assert 3 == found["spec"]["server"]["replicas"]
    with pytest.raises(CommandFailed, match="replicas or autoscaling, not both"):
        namespace.kubectl("scale", "csrv/shared", "--replicas=3")
    shown = namespace.kubectl("get", "kosine", "--output=wide")
    assert all(
        word in shown for word in ("READY", "LOADED", "ROWS", "SOURCE", "s3://bucket/items.npy", "PODS")
    )
    assert "Hot" in namespace.kubectl("explain", "cosineindex.spec.refresh.interval")


def stored(namespace: Namespace, kind: str, spec: dict[str, Any], *, name: str = "items") -> dict[str, Any]:
    return {
        "apiVersion": "kosine.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace.name},
        "spec": spec,
    }
