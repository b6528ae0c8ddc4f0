"""What each example becomes, to the letter, and that Kubernetes knows every field of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml

from tests.kit.golden_manifests import GOLDEN, golden_text
from tests.kit.operator_pools import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path

PATHS = sorted(EXAMPLES.glob("*.yaml"))
OF_OTHERS = {"monitoring.coreos.com", "gateway.networking.k8s.io", "keda.sh"}
"""Groups whose schemas Kubernetes does not bring."""


def golden_manifests() -> list[Any]:
    return [
        pytest.param(each, id=f"{path.stem}-{each['kind']}-{each['metadata']['name']}")
        for path in sorted(GOLDEN.glob("*.yaml"))
        for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if each["apiVersion"].split("/")[0] not in OF_OTHERS
    ]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_an_example_becomes_these_objects(path: Path) -> None:
    """A change of what is rendered is seen in review; `make golden` writes it."""
    assert (GOLDEN / path.name).read_text(encoding="utf-8") == golden_text(path)


def test_there_is_no_golden_file_without_an_example() -> None:
    """Nothing is left of an example that is gone."""
    assert [path.name for path in PATHS] == sorted(path.name for path in GOLDEN.glob("*.yaml"))


@pytest.mark.parametrize("manifest", golden_manifests())
def test_kubernetes_knows_every_field(manifest: dict[str, Any]) -> None:
    """Strictly: an unknown field is an error, as it is for a server-side apply."""
    kubernetes_validate.validate(manifest, "1.37", strict=True)
