"""What there is to see of a pool: the counts of its Deployment and what each pod says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

__all__ = ("ApplyFailure", "IndexReport", "LoadFailure", "Observed", "PodReport", "Rollout", "rollout_of")

AVAILABLE = "available"
"""The `state` of an index that answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFailure:
    """`last_error` of `GET /indexes/{name}`."""

    code: str
    detail: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexReport:
    """What a pod says of one index: `GET /indexes`."""

    state: str
    version: str | None = None
    rows: int | None = None
    dim: int | None = None
    bytes: int | None = None
    loaded_at: datetime | None = None
    outdated: bool = False
    """Whether the version that serves was loaded under other settings than those in force."""
    last_error: LoadFailure | None = None

    @property
    def answers(self) -> bool:
        """Whether queries of this index are answered there."""
        return self.state == AVAILABLE

    @property
    def loaded(self) -> bool:
        """Whether what answers is what the configuration asks for."""
        return self.answers and not self.outdated


@dataclass(frozen=True, slots=True, kw_only=True)
class PodReport:
    """One pod that is not terminating."""

    pod: str
    ready: bool
    configuration_hash: str | None = None
    """What is in force there; None while it cannot be asked."""
    refused: str | None = None
    """Why it does not take the configuration file it has."""
    indexes: Mapping[str, IndexReport] = field(default_factory=dict)
    error: str | None = None
    """Why it cannot be asked."""
    waiting: str | None = None
    """Why its container does not run: `ImagePullBackOff: ...`, `Unschedulable: ...`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """What the Deployment's status says."""

    observed: bool = False
    """Whether it is about the newest spec of the Deployment."""
    desired: int = 0
    replicas: int = 0
    updated: int = 0
    ready: int = 0
    available: int = 0
    stuck: str | None = None
    """Why it makes no progress: `ProgressDeadlineExceeded`, or pods that cannot be created."""

    @property
    def complete(self) -> bool:
        """Whether every pod is a new one, ready, and no old one is left."""
        return self.observed and self.replicas == self.updated == self.ready == self.desired


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyFailure:
    """The API server did not take what was rendered."""

    reason: str
    """`Rejected`, `NameConflict`, `InvalidPodTemplate` ..."""
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything that was looked at for one pool."""

    now: datetime
    rollout: Rollout = Rollout()
    pods: tuple[PodReport, ...] = ()
    failure: ApplyFailure | None = None
    led_here: frozenset[str] = frozenset()
    """Indexes whose Service leads to the pods of this pool."""

    @property
    def ready(self) -> tuple[PodReport, ...]:
        """The pods that Services lead to."""
        return tuple(pod for pod in self.pods if pod.ready)


def rollout_of(deployment: Mapping[str, Any] | None) -> Rollout:
    """The counts of a Deployment as the API server sends it; None: there is none."""
    if deployment is None:
        return Rollout()
    status = deployment.get("status") or {}
    return Rollout(
        observed=status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0),
        desired=deployment["spec"].get("replicas", 1),
        replicas=status.get("replicas", 0),
        updated=status.get("updatedReplicas", 0),
        ready=status.get("readyReplicas", 0),
        available=status.get("availableReplicas", 0),
        stuck=_stuck(status.get("conditions") or ()),
    )


def _stuck(conditions: Any) -> str | None:
    by_type = {condition["type"]: condition for condition in conditions}
    failure, progress = by_type.get("ReplicaFailure", {}), by_type.get("Progressing", {})
    if failure.get("status") == "True":
        return f"{failure.get('reason')}: {failure.get('message')}"
    if progress.get("status") == "False":
        return f"{progress.get('reason')}: {progress.get('message')}"
    return None
