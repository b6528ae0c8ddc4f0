"""Which pods serve which indexes, and which indexes they do not take, and why.

A pool is one Deployment: of a CosineServer with the indexes that name it, or of a CosineIndex that names
none. An index that moves belongs to two pools for a while: the new one loads it, then its Service is turned,
and only `HANDOVER` after that was seen the old one drops it, however long the turn took. What is left to do
follows from `status.serving` and `status.previous` of the index alone, so an operator that is killed in
between goes on where it was. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from kosine_operator.quantities import bytes_of
from kosine_operator.resources import INDEX_KIND, SERVER_KIND, CosineIndex, CosineServer, Kind, ServerSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = (
    "HANDOVER",
    "Acceptance",
    "OwnerRef",
    "Pool",
    "PoolKey",
    "Reason",
    "Refusal",
    "acceptance",
    "members",
    "pool",
    "pool_of",
    "pools_of",
    "served_by",
)

HANDOVER = timedelta(seconds=10)
"""How long the old pool keeps an index whose Service points to the new one: proxies learn late."""

_OLDEST = datetime.min.replace(tzinfo=UTC)


class Reason(StrEnum):
    """Why something that was asked for is not done."""

    SERVER_NOT_FOUND = "ServerNotFound"
    NAME_CONFLICT = "NameConflict"
    INSUFFICIENT_MEMORY = "InsufficientMemory"
    INVALID_POD_TEMPLATE = "InvalidPodTemplate"
    SERVICE_ACCOUNT_NOT_ALLOWED = "ServiceAccountNotAllowed"
    CRD_NOT_INSTALLED = "CRDNotInstalled"
    DEFAULT_INDEX_NOT_FOUND = "DefaultIndexNotFound"


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
    """Indexes it does not take; or, with `index` None, why nothing of it may be changed."""
    revisit_at: datetime | None = None
    """When a handover ends: look again then, no event will say so."""


def pool_of(index: CosineIndex) -> PoolKey:
    """The pool that `index` asks for."""
    ref, meta = index.spec.server_ref, index.metadata
    if ref is None:
        return PoolKey(meta.namespace, INDEX_KIND, meta.name)
    return PoolKey(meta.namespace, SERVER_KIND, ref.name)


def served_by(index: CosineIndex) -> PoolKey | None:
    """The pool that its Service leads to; None where it never had one."""
    serving = index.status.serving
    return None if serving is None else PoolKey(index.metadata.namespace, serving.kind, serving.name)


def pools_of(index: CosineIndex) -> frozenset[PoolKey]:
    """Every pool that a change of `index` may mean something to."""
    previous = index.status.previous
    keys = {pool_of(index), served_by(index)}
    if previous is not None:
        keys.add(PoolKey(index.metadata.namespace, previous.kind, previous.name))
    return frozenset(key for key in keys if key is not None)


def members(key: PoolKey, indexes: Iterable[CosineIndex]) -> tuple[CosineIndex, ...]:
    """The indexes that ask for this pool, by name: those whose status its reconciliation writes."""
    return _by_name(index for index in indexes if pool_of(index) == key and not _is_going(index))


def pool(
    key: PoolKey, indexes: Iterable[CosineIndex], servers: Iterable[CosineServer], *, now: datetime
) -> Pool | None:
    """The pool as it should be; None: its owner is gone or has moved on, so its objects are to be deleted.

    `indexes` and `servers` are all of the namespace.
    """
    present = [index for index in indexes if not _is_going(index)]
    standing = [server for server in servers if server.metadata.deletion_timestamp is None]
    if key.kind == SERVER_KIND:
        server = next((server for server in standing if server.metadata.name == key.name), None)
        return None if server is None else _shared(key, server, present, now)
    index = next((index for index in present if index.metadata.name == key.name), None)
    return None if index is None else _dedicated(key, index, standing, now)


def acceptance(index: CosineIndex, pool: Pool | None) -> Acceptance:
    """Whether the pool it asks for takes `index`; None: there is no such pool."""
    if pool is None:
        asked = pool_of(index)
        return Acceptance(
            accepted=False,
            reason=Reason.SERVER_NOT_FOUND,
            message=f"there is no CosineServer {asked.name} in {asked.namespace}; create it, or name another",
        )
    for refusal in pool.refusals:
        if refusal.index in {None, index.metadata.name}:
            return Acceptance(accepted=False, reason=refusal.reason, message=refusal.message)
    return Acceptance(accepted=True, reason="Accepted", message=f"served by {pool.key.kind} {pool.key.name}")


def _dedicated(key: PoolKey, index: CosineIndex, servers: list[CosineServer], now: datetime) -> Pool | None:
    moving_away = pool_of(index) != key
    if moving_away and not _keeps(key, index, now):
        return None
    namesake = next((server for server in servers if server.metadata.name == key.name), None)
    refusals = () if namesake is None or moving_away or _older(index, namesake) else (_taken(namesake),)
    return Pool(
        key=key,
        owner=OwnerRef(INDEX_KIND, key.name, index.metadata.uid),
        # What its pods were made of is no longer in the spec once it names a server.
        paused=index.spec.paused or moving_away,
        server=index.spec.server or ServerSpec(),
        indexes=(index,),
        refusals=refusals,
        revisit_at=_handover_ends([index], now),
    )


def _shared(key: PoolKey, server: CosineServer, indexes: list[CosineIndex], now: datetime) -> Pool:
    asking = [index for index in members(key, indexes) if not _waits(key, index)]
    leaving = [index for index in indexes if pool_of(index) != key and _keeps(key, index, now)]
    refusals = (*_namesakes(server, indexes), *_over_memory(key, server, asking))
    refused = {refusal.index for refusal in refusals}
    served = [index for index in asking if index.metadata.name not in refused]
    return Pool(
        key=key,
        owner=OwnerRef(SERVER_KIND, key.name, server.metadata.uid),
        server=server.spec,
        indexes=_by_name([*served, *leaving]),
        paused=server.spec.paused,
        refusals=refusals,
        revisit_at=_handover_ends([*served, *leaving], now),
    )


def _keeps(key: PoolKey, index: CosineIndex, now: datetime) -> bool:
    """Whether an index that asks for another pool is still this one's to serve."""
    previous = index.status.previous
    if previous is not None and (previous.kind, previous.name) == (key.kind, key.name):
        return previous.until is None or now < previous.until
    return served_by(index) == key


def _handover_ends(indexes: Iterable[CosineIndex], now: datetime) -> datetime | None:
    previous = [index.status.previous for index in indexes]
    ends = [each.until for each in previous if each is not None and each.until is not None]
    return min((end for end in ends if now < end), default=None)


def _waits(key: PoolKey, index: CosineIndex) -> bool:
    """A paused index does not move."""
    return index.spec.paused and served_by(index) not in {None, key}


def _namesakes(server: CosineServer, indexes: list[CosineIndex]) -> tuple[Refusal, ...]:
    """An index and a server of one name would both have a Service of it; the older one has it."""
    index = next((index for index in indexes if index.metadata.name == server.metadata.name), None)
    if index is None:
        return ()
    if not _older(index, server):
        return (_taken(server, index=index.metadata.name),)
    return (_taken(index),)


def _taken(by: CosineIndex | CosineServer, *, index: str | None = None) -> Refusal:
    kind, name = type(by).__name__, by.metadata.name
    message = f"an older {kind} is called {name}, too, and so is its Service; rename one of them"
    return Refusal(Reason.NAME_CONFLICT, message, index=index)


def _over_memory(key: PoolKey, server: CosineServer, asking: list[CosineIndex]) -> tuple[Refusal, ...]:
    """The newest of what does not fit; what is served already stays, whatever the limit is now."""
    if server.spec.index_memory_limit is None:
        return ()
    free, refusals = bytes_of(server.spec.index_memory_limit), []
    for index in sorted(asking, key=lambda index: (served_by(index) != key, *_age(index))):
        if index.spec.memory is None:
            continue
        need = bytes_of(index.spec.memory)
        if need > free and served_by(index) != key:
            refusals.append(_no_room(index, server, free))
        else:
            free -= need
    return tuple(refusals)


def _no_room(index: CosineIndex, server: CosineServer, free: int) -> Refusal:
    return Refusal(
        Reason.INSUFFICIENT_MEMORY,
        f"it needs {index.spec.memory}, and of the {server.spec.index_memory_limit} of CosineServer "
        f"{server.metadata.name} {max(free, 0) // 2**20}Mi are free; raise indexMemoryLimit, or name another",
        index=index.metadata.name,
    )


def _age(resource: CosineIndex | CosineServer) -> tuple[datetime, str]:
    return resource.metadata.creation_timestamp or _OLDEST, resource.metadata.name


def _older(index: CosineIndex, server: CosineServer) -> bool:
    return _age(index)[0] <= _age(server)[0]


def _is_going(index: CosineIndex) -> bool:
    return index.metadata.deletion_timestamp is not None


def _by_name(indexes: Iterable[CosineIndex]) -> tuple[CosineIndex, ...]:
    return tuple(sorted(indexes, key=lambda index: index.metadata.name))
