"""A real control plane as processes: etcd, kube-apiserver, kube-controller-manager, kube-scheduler.

It lives in one folder, listens on the node's address, and is gone with its block. CustomResourceDefinitions
that tests use are given at the start: the garbage collector looks for new kinds every 30 s only, and so
would leave the children of a deleted resource lying about that long.
"""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.kit.control_plane import audit, commands
from tests.kit.control_plane.access import Access
from tests.kit.control_plane.commands import ControlPlaneFiles
from tests.kit.control_plane.namespaces import NODE_ADDRESS
from tests.kit.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.kit.control_plane.audit import ApiRequest

__all__ = ("ControlPlane", "ControlPlaneFailed", "control_plane")

STARTUP_SECONDS = 120.0


class ControlPlaneFailed(Exception):
    """A program ended, or a step did not come in time; says which, with the end of its log."""


@dataclass(slots=True, eq=False)
class ControlPlane:
    """Its programs by name, its files, and the admin's access."""

    programs: Path
    files: ControlPlaneFiles
    admin: Access
    port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, *command: str) -> None:
        """Start a program; its log is `files.log(name)`."""
        name, *flags = command
        with self.files.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [self.programs / name, *flags], stdout=log, stderr=log, cwd=self.files.folder
            )

    def start_api_server(self) -> None:
        """Start it, again if it was there before, and wait until it is ready."""
        self.start(*commands.api_server(self.files, address=NODE_ADDRESS, port=self.port))
        self.until(lambda: self.admin.request("GET", "/readyz").status == 200, what="kube-apiserver ready")

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End a program and wait for its end; the others go on."""
        process = self.processes.pop(name)
        process.send_signal(number)
        process.wait()

    def until(self, condition: Callable[[], bool], *, what: str, within: float = STARTUP_SECONDS) -> None:
        """Wait for a condition while all programs live; ControlPlaneFailed otherwise."""
        deadline = time.monotonic() + within
        while not condition():
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise ControlPlaneFailed(
                        f"{name} ended with {process.returncode}: {self._end_of_log(name)}"
                    )
            if time.monotonic() > deadline:
                raise ControlPlaneFailed(
                    f"not within {within:.0f} s: {what}: {self._end_of_log('kube-apiserver')}"
                )
            time.sleep(0.05)

    def define(self, definition: Mapping[str, Any]) -> None:
        """Create a CustomResourceDefinition and wait until its kind can be listed."""
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?fieldValidation=Strict"
        made = self.admin.request("POST", path, definition)
        if made.status != 201:
            raise ControlPlaneFailed(f"CRD refused with {made.status}: {made.body.get('message')}")
        spec = definition["spec"]
        for version in spec["versions"]:
            kind = f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}"
            self._until_listed(kind)

    def token_of(self, namespace: str, service_account: str, *, seconds: int = 3600) -> Access:
        """Access as a ServiceAccount, by a TokenRequest as a pod's kubelet makes it."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        answer = self.admin.request("POST", path, {"spec": {"expirationSeconds": seconds}})
        if answer.status != 201:
            raise ControlPlaneFailed(
                f"TokenRequest for {namespace}/{service_account}: {answer.status} {answer.body}"
            )
        return Access(self.admin.url, self.admin.authority, answer.body["status"]["token"])

    def requests(self) -> tuple[ApiRequest, ...]:
        """Every request that the API server has answered so far."""
        return tuple(audit.read(self.files.audit_log))

    def _until_listed(self, path: str) -> None:
        self.until(lambda: self.admin.request("GET", path).status == 200, what=f"{path} served")

    def _end_of_log(self, name: str) -> str:
        path = self.files.log(name)
        return path.read_text(errors="replace")[-3000:] if path.exists() else "no log"

    def stop(self) -> None:
        """At once: nothing of it is kept, and a polite API server would drain its watches for seconds."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        self.processes.clear()


@contextmanager
def control_plane(
    programs: Path, folder: Path, *, definitions: Sequence[Mapping[str, Any]] = ()
) -> Iterator[ControlPlane]:
    """A control plane that serves `definitions`; `folder` exists, is empty and has a short path."""
    files = ControlPlaneFiles(folder)
    port = free_port(NODE_ADDRESS)
    admin = Access(f"https://{NODE_ADDRESS}:{port}", files.authority, secrets.token_hex(16))
    _write_files(files, admin)
    plane = ControlPlane(programs, files, admin, port)
    try:
        plane.start(*commands.etcd(files))
        plane.start_api_server()
        for definition in definitions:
            plane.define(definition)
        plane.start(*commands.controller_manager(files))
        plane.start(*commands.scheduler(files))
        # Pods are refused until their ServiceAccount exists.
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        plane.until(lambda: admin.request("GET", account).status == 200, what="the default ServiceAccount")
        yield plane
    finally:
        plane.stop()


def _write_files(files: ControlPlaneFiles, admin: Access) -> None:
    files.authority.parent.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    files.signing_key.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    files.admin_tokens.write_text(f'{admin.token},admin,admin,"system:masters"\n', encoding="utf-8")
    files.audit_policy.write_text(json.dumps(commands.AUDIT_POLICY), encoding="utf-8")
    admin.write_kubeconfig(files.kubeconfig)
