"""The chart `kosine-operator` as a person installs, upgrades and removes it with helm."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from tests.kit.chart_files import CHARTS, OPERATOR

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.kit.control_plane.audit import ApiRequest
    from tests.kit.control_plane.cluster import Namespace

__all__ = ("CRDS", "OperatorRelease", "operator_release", "pasted")

CRDS = (
    "customresourcedefinition/cosineindexes.kosine.dev",
    "customresourcedefinition/cosineservers.kosine.dev",
)
_CHART = str(CHARTS / OPERATOR)
_IMAGES = {"image": {"tag": "test"}, "serviceImage": {"tag": "test"}}
"""What a test's node knows."""


@dataclass(frozen=True, slots=True)
class OperatorRelease:
    """A release of this name in this namespace; helm waits until what it did is done."""

    namespace: Namespace
    name: str = "kosine-operator"
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fullname(self) -> str:
        """Of its Deployment, its ServiceAccount and its roles."""
        return self.name if OPERATOR in self.name else f"{self.name}-{OPERATOR}"

    def install(self, *options: str, chart: str = _CHART, **values: Any) -> str:
        """What helm says, the notes included. Raises CommandFailed."""
        return self._helm("install", *options, chart=chart, values=values)

    def upgrade(self, *options: str, chart: str = _CHART, **values: Any) -> str:
        """With these values and no earlier ones, as a pipeline does it."""
        return self._helm("upgrade", *options, chart=chart, values=values)

    def rollback(self, revision: int) -> None:
        """To what that revision was."""
        self.namespace.helm("rollback", self.name, str(revision), "--wait", "--timeout=180s")

    def uninstall(self) -> None:
        """Until all that helm deletes is gone."""
        self.namespace.helm("uninstall", self.name, "--wait", "--timeout=180s")

    def pods(self) -> set[str]:
        """Names of those of the operator."""
        selector = f"app.kubernetes.io/name={OPERATOR},app.kubernetes.io/instance={self.name}"
        return {pod["metadata"]["name"] for pod in self.namespace.list("pods", selector)}

    def requests(self) -> list[ApiRequest]:
        """What it has asked the API server for."""
        user = f"system:serviceaccount:{self.namespace.name}:{self.fullname}"
        return [asked for asked in self.namespace.plane.requests() if asked.user == user]

    def errors(self) -> list[dict[str, Any]]:
        """Events of its log that are errors."""
        lines = self.namespace.kubectl("logs", f"deployment/{self.fullname}").splitlines()
        return [event for event in map(json.loads, lines) if event["level"] == "error"]

    def _helm(self, command: str, *options: str, chart: str, values: Mapping[str, Any]) -> str:
        # JSON is YAML; helm merges later files into earlier ones.
        folder = self.namespace.plane.files.folder
        given = [_IMAGES, self.values, values]
        paths = [folder / f"{self.namespace.name}-{self.name}-{number}.json" for number in range(len(given))]
        for path, part in zip(paths, given, strict=True):
            path.write_text(json.dumps(part), encoding="utf-8")
        files = [f"--values={path}" for path in paths]
        return self.namespace.helm(command, self.name, chart, *files, "--wait", "--timeout=180s", *options)


@contextlib.contextmanager
def operator_release(
    namespace: Namespace, name: str = "kosine-operator", **values: Any
) -> Iterator[OperatorRelease]:
    """One that is installed into a cluster that has the CRDs already, and removed behind the block."""
    release = OperatorRelease(namespace, name, {"crds": {"enabled": False}, **values})
    release.install()
    try:
        yield release
    finally:
        release.uninstall()


def pasted(notes: str) -> tuple[dict[str, Any], list[str]]:
    """The resource that notes tell people to apply, and the words of the command that waits for it."""
    manifest = re.search(r"<<'END'\n(.*?)\n  END", notes, re.DOTALL)
    command = re.search(r"(?m)^ *kubectl (wait .*)$", notes)
    assert manifest is not None, notes
    assert command is not None, notes
    return yaml.safe_load(manifest[1]), command[1].split()
