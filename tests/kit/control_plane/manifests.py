"""The few manifests that the kit's own tests need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ("Manifest", "claim", "config_map", "container", "deployment", "pod", "role", "service")

Manifest = dict[str, Any]

READY = {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 1}


def container(image: str, **fields: Any) -> Manifest:
    """Named main, listening on 8080 as http, ready when /readyz says so."""
    ports = [{"name": "http", "containerPort": 8080}]
    return {"name": "main", "image": image, "ports": ports, "readinessProbe": READY, **fields}


def pod(name: str, main: Mapping[str, Any], **spec: Any) -> Manifest:
    """Labelled app=<name>."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [main], **spec},
    }


def deployment(name: str, main: Mapping[str, Any], *, replicas: int = 1, **spec: Any) -> Manifest:
    """Of pods labelled app=<name>."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [main], **spec}},
        },
    }


def service(name: str) -> Manifest:
    """Port 80 of the pods labelled app=<name>."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": "http"}]},
    }


def config_map(name: str, **data: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def claim(name: str, namespace: str, folder: Path) -> tuple[Manifest, Manifest]:
    """A claim and the volume that is meant for it: a folder of this machine, which is kept."""
    access: Manifest = {"accessModes": ["ReadWriteOnce"], "storageClassName": ""}
    volume = f"{namespace}-{name}"
    size = {"storage": "1Gi"}
    return (
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {
                **access,
                "capacity": size,
                "claimRef": {"namespace": namespace, "name": name},
                "hostPath": {"path": str(folder)},
                "persistentVolumeReclaimPolicy": "Retain",
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name},
            "spec": {**access, "resources": {"requests": size}, "volumeName": volume},
        },
    )


def role(
    name: str, service_account: str, rules: Sequence[Mapping[str, Any]], *, cluster_wide: str | None = None
) -> tuple[Manifest, ...]:
    """A Role and its binding to a ServiceAccount of the namespace that it is applied in.

    `cluster_wide` names that namespace where it is to be a ClusterRole.
    """
    group = "rbac.authorization.k8s.io"
    kind = "Role" if cluster_wide is None else "ClusterRole"
    where = {} if cluster_wide is None else {"namespace": cluster_wide}
    name = name if cluster_wide is None else f"{cluster_wide}-{name}"
    return (
        {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": name}, "rules": list(rules)},
        {
            "apiVersion": f"{group}/v1",
            "kind": f"{kind}Binding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": kind, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": service_account, **where}],
        },
    )
