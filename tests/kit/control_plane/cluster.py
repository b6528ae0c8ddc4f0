"""What a test holds: a cluster, and in it a namespace of its own."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.kit.control_plane.access import Access
    from tests.kit.control_plane.control_plane import ControlPlane

__all__ = ("CommandFailed", "Namespace", "until")

Found = TypeVar("Found")


class CommandFailed(Exception):
    """kubectl or helm ended with an error; holds what it said."""

    def __init__(self, command: tuple[str, ...], code: int, said: str) -> None:
        super().__init__(f"{' '.join(command)} ended with {code}: {said}")
        self.said = said


def until(
    find: Callable[[], Found | None],
    *,
    what: str,
    within: float = 60.0,
    despite: type[Exception] | tuple[type[Exception], ...] = (),
) -> Found:
    """The first result of `find` that is true, asked every 0.2 s; AssertionError naming `what` if late.

    Errors of the `despite` kinds are no result yet.
    """
    deadline = time.monotonic() + within
    last: object = None
    while time.monotonic() < deadline:
        try:
            if found := find():
                return found
        except despite as error:
            last = error
        time.sleep(0.2)
    raise AssertionError(f"not within {within:.0f} s: {what}; last: {last!r}")


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace as the admin, or as whoever `kubeconfig` is, sees it."""

    name: str
    plane: ControlPlane
    kubeconfig: Path

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """What kubectl prints; CommandFailed when it fails."""
        return self._run("kubectl", "--namespace", self.name, *arguments, stdin=stdin)

    def helm(self, *arguments: str) -> str:
        """What helm prints; CommandFailed when it fails."""
        return self._run("helm", "--namespace", self.name, *arguments)

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Server-side, refusing fields that the API does not know."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "--server-side", "--validate=strict", "-f", "-", stdin=json.dumps(items))

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """One object, or None."""
        said = self.kubectl("get", kind, name, "--ignore-not-found", "--output=json")
        return json.loads(said) if said else None

    def list(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """All objects of a kind that a label selector matches."""
        said = self.kubectl("get", kind, f"--selector={selector}", "--output=json")
        items: list[dict[str, Any]] = json.loads(said)["items"]
        return items

    def wait(self, condition: str, *objects: str, within: float = 120.0) -> None:
        """`kubectl wait`: condition as "condition=Ready", "delete" or "jsonpath={...}=value"."""
        self.kubectl("wait", f"--for={condition}", f"--timeout={within:.0f}s", *objects)

    def rolled_out(self, deployment: str, *, within: float = 180.0) -> None:
        """Until all its pods are of its newest template and ready."""
        self.kubectl("rollout", "status", f"deployment/{deployment}", f"--timeout={within:.0f}s")

    def cluster_address(self, service: str) -> str:
        """The Service's ClusterIP."""
        return self.kubectl("get", "service", service, "--output=jsonpath={.spec.clusterIP}")

    def access(self, service_account: str) -> Access:
        """The API server as a ServiceAccount."""
        return self.plane.token_of(self.name, service_account)

    def seen_by(self, service_account: str) -> Namespace:
        """This namespace as a ServiceAccount sees it."""
        path = self.plane.files.folder / f"{self.name}-{service_account}.kubeconfig"
        self.access(service_account).write_kubeconfig(path, namespace=self.name)
        return Namespace(self.name, self.plane, path)

    def report(self) -> str:
        """What a person wants to see of it after a failure."""
        parts = [self.kubectl("get", "all,configmaps", "--output=wide"), self.kubectl("get", "events")]
        pods = sorted((self.plane.files.folder / "pods").glob(f"{self.name}_*/*.log"))
        logs = (*pods, self.plane.files.log("kubelet"))
        parts += [f"--- {path.parent.name}/{path.name}\n{path.read_text()[-3000:]}" for path in logs]
        return "\n".join(parts)

    def _run(self, program: str, *arguments: str, stdin: str | None = None) -> str:
        # Beside nothing of this machine's: no caches, plugins or settings of whoever runs the tests.
        environment = {
            "HOME": str(self.plane.files.folder),
            "KUBECONFIG": str(self.kubeconfig),
            "PATH": os.defpath,
        }
        ran = subprocess.run(
            [self.plane.programs / program, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        if ran.returncode:
            raise CommandFailed((program, *arguments), ran.returncode, (ran.stdout + ran.stderr).strip())
        return ran.stdout
