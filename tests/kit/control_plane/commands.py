"""How each program of the control plane is started: flags as values.

etcd listens on Unix sockets, so that only the API server can reach it. The API server makes its own
certificate, which serves as its authority: clients check TLS as they do in a cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.kit.control_plane.namespaces import SERVICE_NETWORK

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ("AUDIT_POLICY", "ControlPlaneFiles", "api_server", "controller_manager", "etcd", "scheduler")

# By their long names; the short ones of older releases are refused. Without node-lifecycle: it would take a
# machine that stands still for a minute for a dead node, and evict its pods.
_CONTROLLERS = (
    "clusterrole-aggregation",
    "cronjob",
    "daemonset",
    "deployment",
    "disruption",
    "endpoints",
    "endpointslice",
    "garbage-collector",
    "horizontal-pod-autoscaler",
    "job",
    "namespace",
    "persistentvolume-binder",
    "persistentvolume-protection",
    "persistentvolumeclaim-protection",
    "pod-garbage-collector",
    "replicaset",
    "resourcequota",
    "root-ca-certificate-publisher",
    "serviceaccount",
    "serviceaccount-token",
    "statefulset",
    "ttl-after-finished",
)

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


@dataclass(frozen=True, slots=True)
class ControlPlaneFiles:
    """Everything the programs read and write lies in one folder.

    Its path is at most 90 bytes: a Unix socket's has 107.
    """

    folder: Path

    @property
    def authority(self) -> Path:
        """The API server's own certificate chain; with its key beside it."""
        return self.folder / "certificates" / "apiserver.crt"

    @property
    def certificate_key(self) -> Path:
        return self.authority.with_suffix(".key")

    @property
    def signing_key(self) -> Path:
        """Signs the tokens of ServiceAccounts."""
        return self.folder / "tokens.key"

    @property
    def admin_tokens(self) -> Path:
        return self.folder / "tokens.csv"

    @property
    def kubeconfig(self) -> Path:
        """The admin's."""
        return self.folder / "admin.kubeconfig"

    @property
    def audit_policy(self) -> Path:
        return self.folder / "audit-policy.json"

    @property
    def audit_log(self) -> Path:
        return self.folder / "audit.log"

    def log(self, program: str) -> Path:
        return self.folder / f"{program}.log"


def etcd(files: ControlPlaneFiles) -> tuple[str, ...]:
    """One member that does not wait for the disk: its data dies with the run."""
    client, peer = f"unix://{files.folder}/etcd.sock", f"unix://{files.folder}/peer.sock"
    return (
        "etcd",
        f"--data-dir={files.folder}/etcd",
        "--unsafe-no-fsync",
        "--log-level=warn",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
    )


def api_server(files: ControlPlaneFiles, *, address: str, port: int) -> tuple[str, ...]:
    """With RBAC, the default admission plugins and an audit log of every request."""
    return (
        "kube-apiserver",
        f"--etcd-servers=unix://{files.folder}/etcd.sock",
        f"--cert-dir={files.authority.parent}",
        f"--bind-address={address}",
        f"--advertise-address={address}",
        f"--secure-port={port}",
        "--authorization-mode=Node,RBAC",
        f"--token-auth-file={files.admin_tokens}",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        f"--service-account-issuer=https://{address}:{port}",
        f"--service-account-key-file={files.signing_key}",
        f"--service-account-signing-key-file={files.signing_key}",
        "--allow-privileged=true",
        f"--audit-policy-file={files.audit_policy}",
        f"--audit-log-path={files.audit_log}",
    )


def controller_manager(files: ControlPlaneFiles) -> tuple[str, ...]:
    """Every controller that acts on what kosine renders."""
    return (
        "kube-controller-manager",
        *_client_flags(files),
        f"--controllers={','.join(f'{name}-controller' for name in _CONTROLLERS)}",
        f"--cert-dir={files.authority.parent}",
        f"--service-account-private-key-file={files.signing_key}",
        f"--root-ca-file={files.authority}",
        "--horizontal-pod-autoscaler-sync-period=2s",
    )


def scheduler(files: ControlPlaneFiles) -> tuple[str, ...]:
    """The default profile."""
    return ("kube-scheduler", *_client_flags(files))


def _client_flags(files: ControlPlaneFiles) -> tuple[str, ...]:
    return (
        f"--kubeconfig={files.kubeconfig}",
        "--leader-elect=false",
        "--secure-port=0",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    )
