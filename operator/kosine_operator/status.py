"""What is true of a resource, from what was seen of its pool. Pure.

`Ready` is true for a generation only when every ready pod reports the configuration rendered from it, and has
loaded what it names. A condition's `lastTransitionTime` moves only with its status; a status that says nothing
new equals the one before, so that nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kosine_operator.pools import Acceptance, Pool
    from kosine_operator.render import Rendered
    from kosine_operator.resources import CosineIndex, CosineServer

__all__ = (
    "ApplyFailure",
    "IndexReport",
    "LoadFailure",
    "Observed",
    "PodReport",
    "Rollout",
    "Transition",
    "index_status",
    "rollout_of",
    "server_status",
    "transitions",
)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A condition that changed its status or reason: one Kubernetes Event."""

    type: str
    status: str
    reason: str
    message: str
    warning: bool


def rollout_of(deployment: Mapping[str, Any] | None) -> Rollout:
    """The counts of a Deployment as the API server sends it; None: there is none."""
    raise NotImplementedError


def index_status(
    index: CosineIndex,
    *,
    pool: Pool | None,
    acceptance: Acceptance,
    rendered: Rendered | None,
    observed: Observed,
    previous: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The whole `status` of `index`; equal to `previous`, the stored one, where nothing changed.

    `pool` and `rendered` are None where there is nothing to serve it.
    """
    raise NotImplementedError


def server_status(
    server: CosineServer,
    *,
    pool: Pool | None,
    rendered: Rendered | None,
    observed: Observed,
    previous: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The whole `status` of `server`; equal to `previous` where nothing changed."""
    raise NotImplementedError


def transitions(previous: Mapping[str, Any] | None, current: Mapping[str, Any]) -> tuple[Transition, ...]:
    """What there is to tell between two statuses, in the order of the conditions."""
    raise NotImplementedError
