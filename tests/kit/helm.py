"""Helm for tests: charts rendered by the real program, found where the control plane's programs are.

`KOSINE_CONTROL_PLANE` names a folder that holds it; otherwise it is what `make control-plane` has built.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("NAMESPACE", "RELEASE", "Helm", "HelmMissing", "Manifest", "Refused", "by_kind", "find_helm")

VARIABLE = "KOSINE_CONTROL_PLANE"
BUILT = Path(__file__).parents[2] / ".control-plane"
RELEASE, NAMESPACE = "search", "shop"
_SECONDS = 60

Manifest = dict[str, Any]


class HelmMissing(Exception):
    """There is no helm to run; says what to do."""


class Refused(Exception):
    """Helm did not render: what it said."""


def find_helm() -> Path:
    """The program; HelmMissing where there is none."""
    named = os.environ.get(VARIABLE)
    found = [Path(named) / "helm"] if named else sorted(BUILT.glob("*/helm"))
    usable = [path for path in found if os.access(path, os.X_OK)]
    if usable:
        return usable[-1].resolve()
    where = f"{VARIABLE}={named} has none" if named else f"{BUILT.name}/ has none: make control-plane"
    raise HelmMissing(f"helm is needed to test charts; {where}")


@dataclass(frozen=True, slots=True)
class Helm:
    """The program, with nothing of this machine's user in it."""

    program: Path
    home: Path
    """Where it may keep what it likes to keep."""
    _rendered: dict[tuple[str, ...], str] = field(default_factory=dict)

    def template(
        self, chart: Path, values: Mapping[str, Any] | None = None, *options: str, release: str = RELEASE
    ) -> list[Manifest]:
        """What `helm install` would apply, its hooks included. Raises Refused."""
        text = self.text(chart, values, *options, release=release)
        return [document for document in yaml.safe_load_all(text) if document]

    def text(
        self, chart: Path, values: Mapping[str, Any] | None = None, *options: str, release: str = RELEASE
    ) -> str:
        """The same as it is printed."""
        question = (str(chart), release, *options, yaml.safe_dump(dict(values or {})))
        if question not in self._rendered:
            self._rendered[question] = self.run(
                "template", release, chart, "--namespace", NAMESPACE, *options, values=values
            )
        return self._rendered[question]

    def notes(self, chart: Path, values: Mapping[str, Any] | None = None) -> str:
        """What `helm install` would tell its user."""
        shown = self.run(
            "install", RELEASE, chart, "--namespace", NAMESPACE, "--dry-run=client", values=values
        )
        return shown.split("NOTES:\n", 1)[1]

    def run(self, *command: str | Path, values: Mapping[str, Any] | None = None) -> str:
        """Its standard output. Raises Refused where it exits with anything but 0."""
        done = subprocess.run(
            [self.program, *command, *(["--values=-"] if values is not None else [])],
            input=None if values is None else yaml.safe_dump(dict(values)),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            env={"HOME": str(self.home), "PATH": os.defpath},
        )
        if done.returncode:
            raise Refused(done.stderr)
        return done.stdout


def by_kind(manifests: list[Manifest]) -> dict[str, list[Manifest]]:
    """Manifests of each kind."""
    found: dict[str, list[Manifest]] = {}
    for manifest in manifests:
        found.setdefault(manifest["kind"], []).append(manifest)
    return found
