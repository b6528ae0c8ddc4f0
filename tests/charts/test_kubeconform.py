"""What kubeconform, a second reader of manifests, says of what charts and operator make, and of the examples.

It reads them as text: unlike a YAML library it sees a key that is there twice.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import kubernetes_validate
import pytest

from tests.kit.chart_cases import cases, oldest
from tests.kit.crds import KINDS, crd
from tests.kit.go_programs import go_program
from tests.kit.golden_manifests import GOLDEN
from tests.kit.json_schemas import CRD_FILES, KUBERNETES_FILES, crd_schemas, kubernetes_schemas
from tests.kit.operator_pools import EXAMPLES
from tests.kit.other_crds import OTHER_CRDS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.helm import Helm

CHARTS = sorted({case.chart for case in cases()})
NEWEST = kubernetes_validate.latest_version().removesuffix(".0")
CHECKED_ELSEWHERE = "PrometheusRule"
"""promtool reads them; there is no schema of theirs here."""
INDEX = """
apiVersion: kosine.dev/v1alpha1
kind: CosineIndex
metadata: {name: items}
spec:
  source: {uri: s3://embeddings/items.npy}
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: items}
spec:
  ports: [{port: 80}]
"""


@pytest.fixture(scope="session")
def kubeconform(tmp_path_factory: pytest.TempPathFactory) -> Kubeconform:
    """The program, and schemas as they are needed."""
    return Kubeconform(go_program("kubeconform", "kubeconform"), tmp_path_factory.mktemp("schemas"))


@dataclass(frozen=True, slots=True)
class Kubeconform:
    """What it knows is in `folder`, for each version of Kubernetes."""

    program: Path
    folder: Path

    def findings(self, *manifests: Path, version: str = NEWEST) -> list[str]:
        """What it has to say of files and folders."""
        options = ["-strict", "-output=json", "-summary", f"-skip={CHECKED_ELSEWHERE}"]
        options += [f"-schema-location={location}" for location in self._schemas(version)]
        done = subprocess.run(
            [self.program, *options, *manifests], capture_output=True, text=True, check=False
        )
        told = json.loads(done.stdout)
        found = [f"{each['kind']}/{each['name']}: {each['msg']}" for each in told["resources"]]
        assert told["summary"]["valid"] + len(found) > 0, done.stderr
        return found

    def _schemas(self, version: str) -> tuple[str, str]:
        folder = self.folder / version
        if not folder.exists():
            folder.mkdir()
            kubernetes_schemas(folder / "kubernetes", version)
            crd_schemas(folder / "crds", [*OTHER_CRDS, *map(crd, KINDS)])
        return f"{folder}/kubernetes/{KUBERNETES_FILES}", f"{folder}/crds/{CRD_FILES}"


@pytest.mark.parametrize("version", ["oldest", "newest"])
@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
def test_it_objects_to_nothing_that_charts_and_operator_make(
    kubeconform: Kubeconform, helm: Helm, tmp_path: Path, chart: Path, version: str
) -> None:
    """Of every set of values and every example, on the oldest and the newest Kubernetes of the chart."""
    rendered = tmp_path / "rendered"
    rendered.mkdir()
    for case in cases(chart.name):
        (rendered / case.path.name).write_text(helm.text(chart, case.values), encoding="utf-8")
    others = [GOLDEN, EXAMPLES] if chart.name == "kosine-operator" else []
    minor = NEWEST if version == "newest" else oldest(chart)
    assert [] == kubeconform.findings(rendered, *others, version=minor)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (INDEX.replace("uri:", "url:"), "uri"),
        (INDEX + "  refesh: {interval: 30s}\n", "refesh"),
        (INDEX + "  k: ten\n", "k"),
        (INDEX + "  k: 10\n  k: 20\n", "already set"),
        (SERVICE + "  selectors: {app: items}\n", "selectors"),
    ],
)
def test_it_objects_to_what_is_wrong(kubeconform: Kubeconform, tmp_path: Path, text: str, told: str) -> None:
    """Fields that are missing, misspelt, of another type or there twice, in resources of either kind."""
    manifest = tmp_path / "wrong.yaml"
    manifest.write_text(text, encoding="utf-8")
    [found] = kubeconform.findings(manifest)
    assert told in found
