"""The kit keeps a cluster's laws: what is proved on it is proved for a cluster."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import yaml

from tests.kit.control_plane.cluster import CommandFailed, until
from tests.kit.control_plane.manifests import config_map, container, deployment, pod, role, service

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.control_plane.cluster import Namespace

PUPPET = "puppet:test"


def puppet(name: str, *, volumes: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A pod of the puppet with volumes (mount path -> source)."""
    named = {f"v{number}": item for number, item in enumerate((volumes or {}).items())}
    mounts = [{"name": volume, "mountPath": path} for volume, (path, _) in named.items()]
    grace = fields.pop("terminationGracePeriodSeconds", 5)
    return pod(
        name,
        container(PUPPET, volumeMounts=mounts, **fields),
        volumes=[{"name": volume, **source} for volume, (_, source) in named.items()],
        terminationGracePeriodSeconds=grace,
    )


def address_of(namespace: Namespace, name: str) -> str:
    """Of a pod, once it is ready."""
    namespace.wait("condition=Ready", f"pod/{name}")
    found = namespace.get("pod", name)
    assert found is not None
    return f"http://{found['status']['podIP']}:8080"


def asked(url: str, **parameters: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(url, params=parameters, timeout=10).raise_for_status().json()
    return answer


def told(url: str, **parameters: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.post(url, params=parameters, timeout=10).raise_for_status().json()
    return answer


def status_of(namespace: Namespace, name: str) -> dict[str, Any]:
    """Of the pod's one container; empty before the kubelet has seen it."""
    found = namespace.get("pod", name) or {}
    statuses: list[dict[str, Any]] = found.get("status", {}).get("containerStatuses", [{}])
    return statuses[0]


def journal_in(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The volume and the variable that make a puppet keep its journal in a folder of this machine."""
    source = {"/journal": {"hostPath": {"path": str(folder)}}}
    return source, {"name": "JOURNAL", "value": "/journal/lines"}


def lines(folder: Path) -> list[str]:
    return (folder / "lines").read_text(encoding="utf-8").split()


def test_the_service_answers_through_its_cluster_ip_and_follows_its_config_map(
    namespace: Namespace, tmp_path: Path
) -> None:
    """The real service in a Deployment: one query, then a changed ConfigMap in force without a restart."""
    np.save(tmp_path / "items.npy", np.eye(4, dtype=np.float32))

    def configuration(k: int) -> str:
        listen = {"host": "0.0.0.0", "file_roots": ["/data"]}
        return yaml.safe_dump({"service": listen, "indexes": {"items": {"uri": "/data/items.npy", "k": k}}})

    volumes = [
        {"name": "configuration", "configMap": {"name": "kosine"}},
        {"name": "data", "hostPath": {"path": str(tmp_path)}},
        {"name": "temporary", "emptyDir": {}},  # importing TensorFlow looks for one
    ]
    main = container(
        "kosine:test",
        args=["serve", "--config", "/etc/kosine/kosine.yaml"],
        securityContext={"readOnlyRootFilesystem": True},
        volumeMounts=[
            {"name": "configuration", "mountPath": "/etc/kosine", "readOnly": True},
            {"name": "data", "mountPath": "/data", "readOnly": True},
            {"name": "temporary", "mountPath": "/tmp"},  # noqa: S108
        ],
    )
    namespace.apply(
        config_map("kosine", **{"kosine.yaml": configuration(1)}),
        deployment("kosine", main, volumes=volumes),
        service("kosine"),
    )
    namespace.rolled_out("kosine")
    url = f"http://{namespace.cluster_address('kosine')}"
    # A Service may lag behind the pods that are ready.
    answer = until(
        lambda: answer_of(url), what="an answer through the ClusterIP", despite=httpx.TransportError
    )
    assert [["2", 1.0]] == [[str(row), round(score, 6)] for row, score in answer["result"]]

    changed = configuration(2)
    namespace.apply(config_map("kosine", **{"kosine.yaml": changed}))
    expected = hashlib.sha256(changed.encode()).hexdigest()
    until(lambda: asked(f"{url}/configuration")["hash"] == expected, what="the new configuration in force")
    assert 2 == len(answer_of(url)["result"])
    assert [0] == [
        one["restartCount"]
        for found in namespace.list("pods", "app=kosine")
        for one in found["status"]["containerStatuses"]
    ]


def answer_of(url: str) -> dict[str, Any]:
    answer = httpx.post(f"{url}/cos", json={"embedding": [0, 0, 1, 0]}, timeout=10)
    assert 200 == answer.status_code, answer.text
    decoded: dict[str, Any] = answer.json()
    return decoded


@pytest.mark.parametrize("kind", ["configMap", "secret"])
def test_a_change_reaches_the_files_of_a_running_pod_by_one_swapped_link(
    namespace: Namespace, kind: str
) -> None:
    """ConfigMaps and Secrets: new text, another target of `..data`, the same process."""

    def source(text: str) -> dict[str, Any]:
        if kind == "configMap":
            return config_map("source", key=text)
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "source"},
            "stringData": {"key": text},
        }

    reference = (
        {"configMap": {"name": "source"}} if kind == "configMap" else {"secret": {"secretName": "source"}}
    )
    namespace.apply(source("old"), puppet("reader", volumes={"/etc/reader": reference}))
    url = address_of(namespace, "reader")
    before = asked(f"{url}/file", path="/etc/reader/key")
    namespace.apply(source("new"))
    # What an operator may do to have it soon: a kubelet syncs a pod that changes.
    namespace.kubectl("annotate", "pod", "reader", "kosine.dev/configuration=new")
    after = until(
        lambda: found if (found := asked(f"{url}/file", path="/etc/reader/key"))["text"] == "new" else None,
        what="the new text",
    )
    assert "old" == before["text"]
    assert before["data"] != after["data"]
    assert 0 == status_of(namespace, "reader")["restartCount"]


def test_a_process_that_ends_is_started_again_in_its_pod(namespace: Namespace) -> None:
    """The status counts it and keeps the exit code; the pod keeps its address."""
    namespace.apply(puppet("mortal"))
    url = address_of(namespace, "mortal")
    with pytest.raises(httpx.TransportError):
        told(f"{url}/exit", code="3")
    until(lambda: status_of(namespace, "mortal").get("restartCount") == 1, what="one restart")
    assert url == address_of(namespace, "mortal")
    assert 3 == status_of(namespace, "mortal")["lastState"]["terminated"]["exitCode"]


def test_a_liveness_probe_that_fails_restarts_the_container(namespace: Namespace) -> None:
    """After failureThreshold failures in a row."""
    probe = {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 1, "failureThreshold": 2}
    namespace.apply(puppet("ill", livenessProbe=probe))
    told(f"{address_of(namespace, 'ill')}/unready")
    until(lambda: status_of(namespace, "ill").get("restartCount") == 1, what="one restart")


def test_deletion_runs_pre_stop_then_sigterm_then_waits(namespace: Namespace, tmp_path: Path) -> None:
    """A process that ends within the grace ends by itself."""
    volumes, variable = journal_in(tmp_path)
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo preStop >>/journal/lines"]}}}
    linger = {"name": "LINGER", "value": "2"}
    namespace.apply(
        puppet(
            "polite",
            volumes=volumes,
            env=[variable, linger],
            lifecycle=hook,
            terminationGracePeriodSeconds=60,
        )
    )
    address_of(namespace, "polite")
    namespace.kubectl("delete", "pod", "polite", "--timeout=120s")
    assert ["start", "preStop", "SIGTERM", "end"] == lines(tmp_path)


def test_a_process_that_outstays_its_grace_is_killed(namespace: Namespace, tmp_path: Path) -> None:
    """A preStop sleep counts towards the grace; SIGTERM comes even when it has used it up."""
    volumes, variable = journal_in(tmp_path)
    namespace.apply(
        puppet(
            "stubborn",
            volumes=volumes,
            env=[variable, {"name": "STUBBORN", "value": "1"}],
            lifecycle={"preStop": {"sleep": {"seconds": 1}}},
            terminationGracePeriodSeconds=1,
        )
    )
    url = address_of(namespace, "stubborn")
    namespace.kubectl("delete", "pod", "stubborn", "--timeout=60s")
    assert ["start", "SIGTERM"] == lines(tmp_path)
    with pytest.raises(httpx.TransportError):
        asked(url)


def test_a_service_sends_nothing_to_pods_that_are_not_ready(namespace: Namespace) -> None:
    """Two pods listen on port 8080; one that is not ready gets no connection, without any all are refused."""
    namespace.apply(deployment("web", container(PUPPET), replicas=2), service("web"))
    namespace.rolled_out("web")
    url = f"http://{namespace.cluster_address('web')}"

    def answering() -> set[str]:
        try:
            return {asked(url)["pod"] for _ in range(10)}
        except httpx.ConnectError:
            return set()

    pods = {one["metadata"]["name"]: one["status"]["podIP"] for one in namespace.list("pods", "app=web")}
    first, second = pods
    until(lambda: answering() == {first, second}, what="answers of both")
    told(f"http://{pods[first]}:8080/unready")
    until(lambda: answering() == {second}, what="answers of one")
    told(f"http://{pods[second]}:8080/unready")
    until(lambda: answering() == set(), what="refused connections")
    told(f"http://{pods[first]}:8080/ready")
    until(lambda: answering() == {first}, what="answers of the other")


def test_an_api_server_that_is_killed_loses_nothing(namespace: Namespace) -> None:
    """Pods answer meanwhile; afterwards everything is there, and new pods come."""
    namespace.apply(deployment("web", container(PUPPET)), service("web"))
    namespace.rolled_out("web")
    url = f"http://{namespace.cluster_address('web')}"
    before = [one["metadata"]["uid"] for one in namespace.list("pods,services,deployments")]
    until(lambda: asked(url), what="an answer", despite=httpx.TransportError)

    namespace.plane.kill("kube-apiserver")
    during = [asked(url)["pod"] for _ in range(20)]
    namespace.plane.start_api_server()

    assert 1 == len(set(during))
    assert before == [one["metadata"]["uid"] for one in namespace.list("pods,services,deployments")]
    namespace.kubectl("scale", "deployment/web", "--replicas=2")
    namespace.rolled_out("web")


def test_a_service_account_may_do_what_its_role_says_and_nothing_else(namespace: Namespace) -> None:
    """RBAC is on: no role, no access; the audit log has who was refused."""
    namespace.kubectl("create", "serviceaccount", "clerk")
    clerk = namespace.seen_by("clerk")
    with pytest.raises(CommandFailed, match="Forbidden"):
        clerk.list("configmaps")
    namespace.apply(
        *role("clerk", "clerk", [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}])
    )
    names = until(
        lambda: {one["metadata"]["name"] for one in clerk.list("configmaps")},
        what="a list",
        despite=CommandFailed,
    )
    assert "kube-root-ca.crt" in names
    with pytest.raises(CommandFailed, match="Forbidden"):
        clerk.list("secrets")
    user = f"system:serviceaccount:{namespace.name}:clerk"
    seen = {(one.resource, one.verb, one.status) for one in namespace.plane.requests() if one.user == user}
    assert {("configmaps", "list", 200), ("configmaps", "list", 403), ("secrets", "list", 403)} <= seen


def test_a_pod_reaches_the_api_server_as_its_service_account(namespace: Namespace) -> None:
    """By the address in its environment, with the token and the authority mounted for it."""
    reading = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
    namespace.apply(*role("reader", "default", reading), puppet("client"))
    url = address_of(namespace, "client")
    paths = [f"/api/v1/namespaces/{namespace.name}/{kind}" for kind in ("configmaps", "secrets")]
    assert [200, 403] == [asked(f"{url}/api", path=path)["status"] for path in paths]


def test_a_read_only_root_file_system_is_read_only(namespace: Namespace) -> None:
    """Volumes are written to, nothing else is."""
    namespace.apply(
        puppet(
            "careful",
            volumes={"/tmp": {"emptyDir": {}}, "/scratch": {"emptyDir": {}}},  # noqa: S108
            securityContext={"readOnlyRootFilesystem": True},
        )
    )
    url = address_of(namespace, "careful")
    writable = ("/tmp/file", "/scratch/file")  # noqa: S108
    others = ("/etc/kosine-test", "/kosine-test", "/root/kosine-test")
    errors = [told(f"{url}/write", path=path)["error"] for path in (*writable, *others)]
    assert [None, None, *["Read-only file system"] * 3] == errors


def test_logs_of_a_pod_are_read_through_the_api_server(namespace: Namespace) -> None:
    """`kubectl logs`."""
    namespace.apply(puppet("talker"))
    address_of(namespace, "talker")
    assert "serving\n" == namespace.kubectl("logs", "talker")


def test_helm_installs_upgrades_and_uninstalls(namespace: Namespace, tmp_path: Path) -> None:
    """A chart with one ConfigMap, whose value a setting changes."""
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: trivial, version: 0.1.0}", encoding="utf-8")
    manifest = json.dumps(config_map("{{ .Release.Name }}", key="{{ .Values.key }}"))
    (chart / "templates" / "it.yaml").write_text(manifest, encoding="utf-8")

    def value() -> str | None:
        found = namespace.get("configmap", "release")
        return found["data"]["key"] if found else None

    namespace.helm("install", "release", str(chart), "--set", "key=first", "--wait")
    installed = value()
    namespace.helm("upgrade", "release", str(chart), "--set", "key=second", "--wait")
    upgraded = value()
    namespace.helm("uninstall", "release", "--wait")
    assert ("first", "second", None) == (installed, upgraded, value())
