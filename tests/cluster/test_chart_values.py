"""The charts with the values of every kind of user, as the API server itself sees what becomes of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.kit.chart_cases import Case, cases
from tests.kit.chart_files import CHARTS, OPERATOR
from tests.kit.control_plane.cluster import Namespace
from tests.kit.helm import NAMESPACE, Helm

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.control_plane.control_plane import ControlPlane
    from tests.kit.helm import Manifest

CASES = [pytest.param(case, id=case.path.stem) for case in cases()]
FOREIGN = {"ServiceMonitor", "PrometheusRule", "HTTPRoute", "ScaledObject"}
"""Kinds whose CRDs this cluster does not have."""


def by_namespace(manifests: list[Manifest]) -> dict[str, list[Manifest]]:
    """What is nobody's, or has no namespace of its own, goes with the release."""
    found: dict[str, list[Manifest]] = {}
    for manifest in manifests:
        if manifest["kind"] not in FOREIGN:
            found.setdefault(manifest["metadata"].get("namespace", NAMESPACE), []).append(manifest)
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_api_server_takes_what_is_rendered(plane: ControlPlane, tmp_path: Path, case: Case) -> None:
    """`helm template | kubectl apply --dry-run=server`: defaults, validation, admission, no unknown field."""
    helm = Helm(plane.programs / "helm", tmp_path)
    for name, manifests in by_namespace(case.render(helm)).items():
        namespace = Namespace(name, plane, plane.files.kubeconfig)
        namespace.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        said = namespace.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=listed)
        assert len(manifests) == said.count("(server dry run)")


def test_the_api_server_takes_the_crds_for_gitops(plane: ControlPlane) -> None:
    """`kubectl apply --server-side --filename crds.yaml`, as docs/install.md has it."""
    namespace = Namespace("default", plane, plane.files.kubeconfig)
    command = ("apply", "--server-side", "--force-conflicts", "--validate=strict", "--dry-run=server")
    said = namespace.kubectl(*command, "--filename", str(CHARTS / OPERATOR / "crds.yaml"))
    assert 2 == said.count("(server dry run)")
