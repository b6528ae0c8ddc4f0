"""The values that charts are tested with, and what Helm makes of them.

A case is a file of tests/charts/values, named CHART-CASE.yaml: values as somebody would write them. What is
rendered lies beside it in tests/charts/golden, so that a change of a template shows what it does;
`python -m tests.kit.chart_cases` writes it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.kit.chart_files import CHARTS
from tests.kit.helm import Helm, find_helm

if TYPE_CHECKING:
    from tests.kit.helm import Manifest

__all__ = ("Case", "about", "cases", "golden_text", "oldest")

_FOLDER = Path(__file__).parents[1] / "charts"


@dataclass(frozen=True, slots=True)
class Case:
    """One chart with one set of values."""

    chart: Path
    path: Path

    @property
    def values(self) -> dict[str, Any]:
        """As they stand in the file."""
        return yaml.safe_load(self.path.read_text(encoding="utf-8")) or {}

    @property
    def golden(self) -> Path:
        """What is rendered of it."""
        return _FOLDER / "golden" / self.path.name

    def render(self, helm: Helm) -> list[Manifest]:
        """Its manifests."""
        return helm.template(self.chart, self.values)


def cases(chart: str = "") -> list[Case]:
    """All cases, or those of one chart."""
    charts = sorted((path.parent for path in CHARTS.glob("*/Chart.yaml")), key=lambda path: -len(path.name))
    found = []
    for path in sorted((_FOLDER / "values").glob("*.yaml")):
        of = next(each for each in charts if path.name.startswith(f"{each.name}-"))
        if chart in ("", of.name):
            found.append(Case(of, path))
    return found


def about(chart: Path) -> dict[str, Any]:
    """Its Chart.yaml."""
    return dict(yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8")))


def oldest(chart: Path) -> str:
    """The first minor version of Kubernetes that `kubeVersion` lets in."""
    return str(about(chart)["kubeVersion"]).removeprefix(">=").removesuffix(".0-0")


def golden_text(manifests: list[Manifest]) -> str:
    """Manifests as text that compares well; whole files that a chart only passes on are left out."""
    return yaml.safe_dump_all([_shortened(manifest) for manifest in manifests], sort_keys=False, width=110)


def _shortened(manifest: Manifest) -> Manifest:
    match manifest["kind"]:
        case "PrometheusRule":
            return {**manifest, "spec": "files/alerts.yaml"}
        case "CustomResourceDefinition":
            return {**manifest, "spec": "files/crds"}
        case "ConfigMap":
            texts = manifest.get("data", {})
            return {**manifest, "data": {key: _file(key, text) for key, text in texts.items()}}
    return manifest


def _file(key: str, text: str) -> str:
    return "a file" if key.endswith(".json") else text


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        helm = Helm(find_helm(), Path(home))
        for case in cases():
            case.golden.write_text(golden_text(case.render(helm)), encoding="utf-8")
