"""Which pods serve which indexes, and which indexes they do not take, and why.

A pool is one Deployment: of a CosineServer with the indexes that name it, or of a CosineIndex that names none.
An index that moves belongs to two pools for a while: the new one loads it, then its Service is turned, and only
`HANDOVER` later the old one drops it. What is left to do follows from `status.serving` and `status.previous`
of the index alone, so an operator that is killed in between goes on where it was. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from kosine_operator.resources import CosineIndex, CosineServer, Kind, ServerSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = (
    "HANDOVER",
    "Acceptance",
    "OwnerRef",
    "Pool",
    "PoolKey",
    "Refusal",
    "acceptance",
    "members",
    "pool",
    "pool_of",
)

HANDOVER = timedelta(seconds=10)
"""How long the old pool keeps an index whose Service points to the new one: proxies and clients learn late."""

Reason = Literal[
    "InvalidSpec",
    "ServerNotFound",
    "NameConflict",
    "InsufficientMemory",
    "InvalidPodTemplate",
    "ServiceAccountNotAllowed",
    "CRDNotInstalled",
    "DefaultIndexNotFound",
]


@dataclass(frozen=True, slots=True)
class PoolKey:
    """Names a pool, whether it exists or not."""

    namespace: str
    kind: Kind
    name: str

    @property
    def label(self) -> str:
        """Value of the label `kosine.dev/pool`: `cosineindex.items`."""
        return f"{self.kind.lower()}.{self.name}"


@dataclass(frozen=True, slots=True)
class OwnerRef:
    """Of whom the pool's objects are garbage once it is gone."""

    kind: Kind
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that was asked for and is not done."""

    reason: Reason
    message: str
    index: str | None = None
    """The index that is left out; None where it is about the pool."""
    optional: bool = False
    """Whether everything else stands without it: a `Degraded` condition, not an `Accepted` one."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The condition `Accepted`."""

    accepted: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What one Deployment is made of."""

    key: PoolKey
    owner: OwnerRef
    server: ServerSpec
    indexes: tuple[CosineIndex, ...]
    """Those it serves, by name: its own, and those that are moving away and not gone yet."""
    paused: bool = False
    """Nothing of it may be changed."""
    refusals: tuple[Refusal, ...] = ()
    """Indexes it does not take; or, with `index` None, why there is no pool to speak of."""
    revisit_at: datetime | None = None
    """When a handover ends: look again then, no event will say so."""


def pool_of(index: CosineIndex) -> PoolKey:
    """The pool that `index` asks for."""
    raise NotImplementedError


def members(key: PoolKey, indexes: Iterable[CosineIndex]) -> tuple[CosineIndex, ...]:
    """The indexes that ask for this pool, by name: those whose status its reconciliation writes."""
    raise NotImplementedError


def pool(
    key: PoolKey, indexes: Iterable[CosineIndex], servers: Iterable[CosineServer], *, now: datetime
) -> Pool | None:
    """The pool as it should be; None: its owner is gone or has moved on, so its objects are to be deleted.

    `indexes` and `servers` are all of the namespace.
    """
    raise NotImplementedError


def acceptance(index: CosineIndex, pool: Pool | None) -> Acceptance:
    """Whether the pool it asks for takes `index`; None: there is no such pool."""
    raise NotImplementedError
