"""The chart of the service in a cluster: what helm installs, answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import yaml

from tests.kit.control_plane.cluster import until

if TYPE_CHECKING:
    from tests.kit.control_plane.cluster import Namespace

CHART = Path(__file__).parents[2] / "charts" / "kosine"


def values_file(folder: Path, *, k: int) -> Path:
    """One index in a folder of this machine; everything else as the chart comes."""
    values = {
        "image": {"repository": "kosine", "tag": "test"},
        "indexes": {"items": {"uri": "/data/items.npy", "k": k}},
        "extraVolumes": [{"name": "data", "hostPath": {"path": str(folder)}}],
        "extraVolumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": True}],
    }
    path = folder / f"values-{k}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def result_of(url: str) -> list[Any]:
    """What the index finds."""
    answer = httpx.post(f"{url}/indexes/items/cos", json={"embedding": [0, 0, 1, 0]}, timeout=10)
    result: list[Any] = answer.raise_for_status().json()["result"]
    return result


def test_the_chart_serves_and_a_changed_index_rolls_no_pod(namespace: Namespace, tmp_path: Path) -> None:
    """Installed with its own defaults: probes, a read-only root, no token; then one value changes."""
    np.save(tmp_path / "items.npy", np.eye(4, dtype=np.float32))
    first, second = (values_file(tmp_path, k=k) for k in (1, 3))
    release = ("search", str(CHART), "--wait", "--timeout=180s")

    namespace.helm("install", *release, f"--values={first}")
    pods = [one["metadata"]["uid"] for one in namespace.list("pods")]
    url = f"http://{namespace.cluster_address('search-kosine')}"
    found = until(lambda: result_of(url), what="an answer", despite=httpx.TransportError)
    namespace.helm("upgrade", *release, f"--values={second}")
    until(lambda: len(result_of(url)) == 3, what="the new default k in force")

    assert [[2, 1.0]] == [[int(row), round(score, 6)] for row, score in found]
    assert pods == [one["metadata"]["uid"] for one in namespace.list("pods")]
    namespace.helm("uninstall", "search", "--wait", "--timeout=180s")
    until(lambda: not namespace.list("pods,services,deployments"), what="nothing left", within=120)
