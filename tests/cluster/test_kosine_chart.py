"""The chart `kosine` on a real control plane: from `helm install` to an answer, and through an upgrade."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import yaml

from tests.kit.chart_files import CHARTS
from tests.kit.control_plane.cluster import CommandFailed, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.control_plane.cluster import Namespace

CHART = str(CHARTS / "kosine")
SELECTOR = "app.kubernetes.io/instance=search,app.kubernetes.io/component=service"
SELF = [0.0, 0.0, 1.0, 0.0]


def vectors() -> dict[str, Any]:
    """A ConfigMap with the four axes as an `.npy` file."""
    file = io.BytesIO()
    np.save(file, np.eye(4, dtype=np.float32))
    content = base64.b64encode(file.getvalue()).decode()
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "vectors"},
        "binaryData": {"items.npy": content},
    }


def values(k: int) -> dict[str, Any]:
    """Two pods that serve those vectors."""
    return {
        "image": {"repository": "kosine", "tag": "test"},
        "replicas": 2,
        "indexes": {"items": {"uri": "/data/items.npy", "k": k}},
        "process": {"drain_delay": "1s", "grace": "5s", "threads": 1},
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": None},
        "extraVolumes": [{"name": "vectors", "configMap": {"name": "vectors"}}],
        "extraVolumeMounts": [{"name": "vectors", "mountPath": "/data", "readOnly": True}],
    }


def helm(namespace: Namespace, folder: Path, *command: str, k: int) -> str:
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(values(k)), encoding="utf-8")
    return namespace.helm(*command, "search", CHART, f"--values={path}")


def results(namespace: Namespace) -> int:
    """How many rows the Service answers where the query does not say."""
    url = f"http://{namespace.cluster_address('search-kosine')}/cos"
    answer = httpx.post(url, json={"embedding": SELF}, timeout=20)
    found: list[Any] = answer.raise_for_status().json()["result"]
    assert [2, 1.0] == found[0]
    return len(found)


def pods(namespace: Namespace) -> set[str]:
    return {pod["metadata"]["uid"] for pod in namespace.list("pods", SELECTOR)}


def test_from_install_to_an_answer_and_on_without_a_restart(namespace: Namespace, tmp_path: Path) -> None:
    """Under Pod Security `restricted`: pods answer, and a changed index reaches the same pods."""
    namespace.kubectl("label", "namespace", namespace.name, "pod-security.kubernetes.io/enforce=restricted")
    namespace.apply(vectors())
    helm(namespace, tmp_path, "install", k=1)
    namespace.rolled_out("search-kosine")
    assert 1 == results(namespace)

    before = pods(namespace)
    helm(namespace, tmp_path, "upgrade", k=3)
    until(lambda: results(namespace) == 3, what="the new configuration", within=120)
    assert before == pods(namespace)

    namespace.helm("uninstall", "search", "--wait")
    until(lambda: not namespace.list("pods", SELECTOR), what="no pods", within=60)
    assert [] == namespace.list("deployments,services,networkpolicies", SELECTOR)


def test_a_selector_is_not_changed_by_an_upgrade_with_other_values(
    namespace: Namespace, tmp_path: Path
) -> None:
    """What the API server would refuse, labels and versions do not touch."""
    namespace.apply(vectors())
    helm(namespace, tmp_path, "install", k=1)
    path = tmp_path / "values.yaml"
    more = {
        **values(1),
        "commonLabels": {"team": "search"},
        "podLabels": {"tier": "data"},
        "gpu": {"count": 2},
    }
    path.write_text(yaml.safe_dump(more), encoding="utf-8")
    namespace.helm("upgrade", "search", CHART, f"--values={path}")
    with pytest.raises(CommandFailed, match="not allowed"):
        namespace.helm("upgrade", "search", CHART, f"--values={path}", "--set", "replcas=3")
