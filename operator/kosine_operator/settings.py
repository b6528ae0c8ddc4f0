"""What the operator can be told, checked before anything starts. Times are in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kosine_operator.render import Defaults

__all__ = ("LeaseSettings", "OperatorSettings")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSettings:
    """Needed where more than one operator runs."""

    namespace: str
    name: str
    duration: float
    """How long the others wait before they take over from a holder that went without a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """Everything that `kosine-operator run` knows."""

    identity: str
    """Of this process among its replicas: the pod's name."""
    namespaces: tuple[str, ...]
    """Empty: all of the cluster."""
    defaults: Defaults
    """What a resource need not say."""
    resync: float
    """How often everything is listed and looked at again, events or not."""
    pending: float
    """How soon a pool is looked at again whose pods have not confirmed what was applied."""
    workers: int
    """Pools looked at at once."""
    api_timeout: float
    pod_timeout: float
    host: str
    port: int
    """Of /livez, /readyz and /metrics; 0 picks a free one."""
    lease: LeaseSettings | None

    @property
    def watched(self) -> tuple[str | None, ...]:
        """Namespaces to list, None standing for all."""
        return self.namespaces or (None,)
