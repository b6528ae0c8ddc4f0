"""What earlier releases were: their charts, resources that people had, and the pods those became.

`python -m tests.kit.released` writes that of the version at hand to tests/charts/released. It is run once for
each release, and the files are not changed after it: upgrades are tested from them.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import kosine
from tests.kit.chart_files import CHARTS, OPERATOR
from tests.kit.helm import find_helm
from tests.kit.operator_pools import EXAMPLES, example_pools, rendered

__all__ = ("Release", "pod_templates", "releases")

_FOLDER = Path(__file__).parents[1] / "charts" / "released"


@dataclass(frozen=True, slots=True)
class Release:
    """One that people may upgrade from."""

    version: str

    @property
    def chart(self) -> Path:
        """The operator's chart, as `helm package` made it."""
        return _FOLDER / f"{OPERATOR}-{self.version}.tgz"

    @property
    def resources(self) -> Path:
        """Every example of its docs."""
        return _FOLDER / f"resources-{self.version}.yaml"

    @property
    def pods(self) -> Path:
        """Templates of the pods that its operator made of them."""
        return _FOLDER / f"pods-{self.version}.yaml"


def releases() -> list[Release]:
    """All that are kept, the oldest first."""
    versions = [path.stem.removeprefix("resources-") for path in _FOLDER.glob("resources-*.yaml")]
    return [Release(version) for version in sorted(versions, key=lambda each: [*map(int, each.split("."))])]


def pod_templates(resources: Path) -> dict[str, Any]:
    """What the operator at hand makes of resources, by the name of the Deployment."""
    return {
        manifest["metadata"]["name"]: manifest["spec"]["template"]
        for pool in example_pools(resources)
        for manifest in rendered(pool).manifests
        if manifest["kind"] == "Deployment"
    }


def _freeze(release: Release) -> None:
    subprocess.run([find_helm(), "package", CHARTS / OPERATOR, "--destination", _FOLDER], check=True)
    texts = [path.read_text(encoding="utf-8") for path in sorted(EXAMPLES.glob("*.yaml"))]
    release.resources.write_text("---\n".join(texts), encoding="utf-8")
    templates = yaml.safe_dump(pod_templates(release.resources), width=110)
    release.pods.write_text(templates, encoding="utf-8")


if __name__ == "__main__":
    _FOLDER.mkdir(exist_ok=True)
    _freeze(Release(kosine.__version__))
