"""The kinds of Kubernetes objects that the operator reads and writes, each named once.

Watches, requests, pruning and the RBAC rules of the chart are made from this table.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = (
    "BY_NAME",
    "CHILDREN",
    "EVENT",
    "INDEX",
    "LEASE",
    "MANAGED_BY",
    "OPTIONAL",
    "POD",
    "RESOURCES",
    "SERVED",
    "SERVER",
    "WATCHED",
    "Kind",
    "Ref",
)

MANAGED_BY = "app.kubernetes.io/managed-by"
"""The label of everything that is ours."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One namespaced kind of the API."""

    name: str
    """As in a manifest's `kind`."""
    plural: str
    group: str
    """Empty for the core group."""
    version: str

    @property
    def api_version(self) -> str:
        """As in a manifest's `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


@dataclass(frozen=True, slots=True)
class Ref:
    """Which object."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.name} {self.namespace}/{self.name}"


INDEX = Kind("CosineIndex", "cosineindexes", "kosine.dev", "v1alpha1")
SERVER = Kind("CosineServer", "cosineservers", "kosine.dev", "v1alpha1")
POD = Kind("Pod", "pods", "", "v1")
LEASE = Kind("Lease", "leases", "coordination.k8s.io", "v1")
EVENT = Kind("Event", "events", "events.k8s.io", "v1")

RESOURCES = (INDEX, SERVER)
"""What people write."""

SERVED = (
    Kind("ConfigMap", "configmaps", "", "v1"),
    Kind("Service", "services", "", "v1"),
    Kind("Deployment", "deployments", "apps", "v1"),
    Kind("PodDisruptionBudget", "poddisruptionbudgets", "policy", "v1"),
    Kind("HorizontalPodAutoscaler", "horizontalpodautoscalers", "autoscaling", "v2"),
    Kind("NetworkPolicy", "networkpolicies", "networking.k8s.io", "v1"),
)
"""What every cluster has."""

OPTIONAL = (
    Kind("ServiceMonitor", "servicemonitors", "monitoring.coreos.com", "v1"),
    Kind("HTTPRoute", "httproutes", "gateway.networking.k8s.io", "v1"),
    Kind("ScaledObject", "scaledobjects", "keda.sh", "v1alpha1"),
)
"""What a cluster may have."""

CHILDREN = (*SERVED, *OPTIONAL)
"""What the operator renders, owns and prunes."""

WATCHED = (*RESOURCES, *CHILDREN, POD)

BY_NAME = {kind.name: kind for kind in WATCHED}
