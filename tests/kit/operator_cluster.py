"""The test cluster as operator and charts need it: with kosine's CRDs, and a node that runs its images."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.kit.control_plane import puppet
from tests.kit.control_plane.control_plane import control_plane
from tests.kit.control_plane.kubelet.settings import Image
from tests.kit.control_plane.manifests import role
from tests.kit.control_plane.node import node

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.kit.control_plane.cluster import Namespace
    from tests.kit.control_plane.control_plane import ControlPlane

__all__ = ("IMAGES", "definitions", "kosine_cluster", "minimal_rights", "writes_of")

_SERVICE = Image(command=(sys.executable, "-m", "kosine"))
IMAGES = {
    "kosine:test": _SERVICE,
    "kosine:next": _SERVICE,
    "kosine-operator:test": Image(command=(sys.executable, "-m", "kosine_operator")),
    "puppet:test": Image(command=(sys.executable, puppet.__file__)),
    "python:test": Image(command=(sys.executable,)),
}
"""What pods may run."""

_WRITES = {"create", "update", "patch", "delete", "deletecollection"}
_FILES = Path(__file__).parents[2] / "charts" / "kosine-operator" / "files"


@contextmanager
def kosine_cluster(
    programs: Path, folder: Path, images: Mapping[str, Image] = IMAGES
) -> Iterator[ControlPlane]:
    """A control plane of these programs; `folder` exists, is empty and has a short path."""
    with control_plane(programs, folder, definitions=definitions()) as started, node(started, images):
        yield started


def definitions() -> list[dict[str, Any]]:
    """Kosine's CRDs."""
    return [yaml.safe_load(path.read_bytes()) for path in sorted((_FILES / "crds").glob("*.yaml"))]


def minimal_rights(namespace: Namespace) -> tuple[Path, str]:
    """A ServiceAccount with exactly the chart's rules: its kubeconfig and its user name."""
    rules = yaml.safe_load((_FILES / "rbac-rules.yaml").read_bytes())
    namespace.apply(*role("kosine-operator", "default", rules["rules"]))
    user = f"system:serviceaccount:{namespace.name}:default"
    return namespace.seen_by("default").kubeconfig, user


def writes_of(user: str, plane: ControlPlane) -> int:
    """Requests of a user that could change something, so far."""
    return sum(each.user == user and each.verb in _WRITES for each in plane.requests())
