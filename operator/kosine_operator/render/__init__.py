"""A pool as Kubernetes objects: a pure function, the only one that says what should exist.

Two rules hold by construction. What may change while pods run is in the ConfigMap and nowhere else; what needs
new pods is in the Deployment and nowhere else: settings of the process are arguments of its container. So no
change of data or configuration ever touches a pod template, and no checksum annotation is needed.

Every object is labelled `kosine.dev/pool=<key.label>` but for the Services of indexes, which outlive a move and
are collected with their index. Whatever of `KINDS` has that label and is not in `Rendered.manifests` is to be
deleted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from kosine_operator.pools import Pool, Refusal

__all__ = ("KINDS", "Capabilities", "Defaults", "Live", "Manifest", "Rendered", "render")

Manifest: TypeAlias = dict[str, Any]
"""One object, to be applied server-side as it is."""

KINDS = (
    ("v1", "ConfigMap"),
    ("v1", "Service"),
    ("apps/v1", "Deployment"),
    ("policy/v1", "PodDisruptionBudget"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("keda.sh/v1alpha1", "ScaledObject"),
)
"""apiVersion and kind of everything that is ever rendered, in the order it is applied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What the administrator of the operator decides for every pool."""

    image: str
    image_pull_policy: str = "IfNotPresent"
    service_accounts: frozenset[str] = frozenset()
    """ServiceAccounts that a resource may name; `*` is every one."""
    cluster_domain: str = "cluster.local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Which CRDs of others this cluster has."""

    service_monitor: bool = False
    http_route: bool = False
    scaled_object: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What must be carried over from what runs."""

    replicas: int | None = None
    """`spec.replicas` of the Deployment; None where there is none yet."""
    replicas_owned: bool = False
    """Whether another field manager (an autoscaler) owns `spec.replicas`."""
    configuration: str | None = None
    """`kosine.yaml` of the ConfigMap; the entries of paused and unreadable indexes are taken from it."""
    unreadable: frozenset[str] = frozenset()
    """Indexes of the namespace that exist but do not parse: what is served of them stays as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What should exist."""

    manifests: tuple[Manifest, ...]
    configuration_hash: str
    """SHA-256 (hex) of the bytes of `kosine.yaml`: what each pod must report."""
    refused: tuple[Refusal, ...] = ()


def render(pool: Pool, *, defaults: Defaults, capabilities: Capabilities, live: Live) -> Rendered:
    """Everything that `pool` needs. Deterministic: equal arguments, equal bytes."""
    raise NotImplementedError
