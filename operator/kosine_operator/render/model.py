"""What rendering takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from kosine_operator.pools import Refusal
    from kosine_operator.resources import Size

__all__ = ("Capabilities", "Defaults", "Live", "Manifest", "Rendered")

Manifest: TypeAlias = dict[str, Any]
"""One object, to be applied server-side as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What the administrator of the operator decides for every pool."""

    image: str
    image_pull_policy: str = "IfNotPresent"
    memory: Size | None = None
    """Limit, and so request, of pods of which nothing about memory was said; None leaves them without one."""
    service_accounts: frozenset[str] = frozenset()
    """ServiceAccounts that a resource may name; `*` is every one."""
    operator_namespace: str = "kosine-system"
    """Where the operator itself runs: a NetworkPolicy lets it through."""


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
