"""Who leads, in virtual time: a lease on a server that can be away, and candidates that can be cut off."""

from __future__ import annotations

import asyncio
import copy
import random
from typing import TYPE_CHECKING, Any, cast

import pytest
from structlog.testing import capture_logs

from kosine_operator.api_errors import Conflict, Unreachable
from kosine_operator.leader import Lease, LeaseLost, Record, may_take

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kosine_operator.cluster import Cluster

DURATION = 15.0


def record(holder: str, *, seen: float) -> Record:
    """A lease that was seen renewed `seen` seconds ago, at 100."""
    return Record(holder=holder, renewed="then", duration=DURATION, seen_at=100.0 - seen)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, True),
        (record("", seen=0.0), True),
        (record("me", seen=0.0), True),
        (record("me", seen=99.0), True),
        (record("other", seen=0.0), False),
        (record("other", seen=15.0), False),
        (record("other", seen=15.1), True),
    ],
)
def test_a_lease_is_taken_from_nobody_who_may_still_hold_it(found: Record | None, *, expected: bool) -> None:
    """Ours, nobody's, or seen unchanged for longer than it lasts."""
    assert expected is may_take(found, me="me", now=100.0)


class LeaseServer:
    """One object under optimistic concurrency, as the API server keeps it; time is the law here."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.away: set[str] = set()
        """Candidates that cannot reach it."""

    def seen_by(self, identity: str) -> Cluster:
        """The view of a candidate."""
        return cast("Cluster", _LeaseClient(self, identity))


class _LeaseClient:
    def __init__(self, server: LeaseServer, identity: str) -> None:
        self._server, self._identity = server, identity

    async def get(self, _ref: object) -> dict[str, Any] | None:
        self._reach()
        return copy.deepcopy(self._server.lease)

    async def create(self, _kind: object, manifest: dict[str, Any]) -> dict[str, Any]:
        return self._store(manifest, expected=None)

    async def replace(self, _ref: object, manifest: dict[str, Any]) -> dict[str, Any]:
        return self._store(manifest, expected=manifest["metadata"]["resourceVersion"])

    def _store(self, manifest: dict[str, Any], *, expected: int | None) -> dict[str, Any]:
        self._reach()
        stored = self._server.lease
        version = None if stored is None else stored["metadata"]["resourceVersion"]
        if version != expected:
            raise Conflict("the object has been modified")
        metadata = {**manifest["metadata"], "resourceVersion": (version or 0) + 1}
        self._server.lease = {**manifest, "metadata": metadata}
        return copy.deepcopy(self._server.lease)

    def _reach(self) -> None:
        if self._identity in self._server.away:
            raise Unreachable("connection refused")


def candidate(server: LeaseServer, identity: str) -> Lease:
    """One of several replicas."""
    return Lease(
        server.seen_by(identity),
        namespace="kosine",
        name="operator",
        identity=identity,
        duration=DURATION,
        rng=random.Random(0),
    )


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with capture_logs():
        yield


virtual_time = pytest.mark.looptime(start=0)


async def ended(task: asyncio.Task[Any]) -> None:
    """Cancel a task that a test needs no more."""
    task.cancel()
    await asyncio.wait({task})


@virtual_time
async def test_one_of_many_leads() -> None:
    """However they race for a lease that nobody has, one gets it."""
    server = LeaseServer()
    candidates = [candidate(server, str(number)) for number in range(5)]
    tasks = [asyncio.create_task(each.acquire()) for each in candidates]
    await asyncio.sleep(1)

    assert 1 == sum(task.done() for task in tasks) == sum(each.valid for each in candidates)
    for task in tasks:
        await ended(task)


@virtual_time
async def test_never_do_two_write_at_once() -> None:
    """At every moment at most one lease is valid, also while its holder is cut off and another takes over."""
    server = LeaseServer()
    first, second = candidate(server, "first"), candidate(server, "second")
    await first.acquire()
    tasks = [asyncio.create_task(first.keep()), asyncio.create_task(second.acquire())]
    for tick in range(600):
        await asyncio.sleep(0.1)
        if tick == 100:
            server.away.add("first")
        assert not (first.valid and second.valid)

    assert (False, True) == (first.valid, tasks[1].done())
    for task in tasks:
        await ended(task)


@virtual_time
async def test_a_holder_outlives_a_server_that_is_away() -> None:
    """It writes nothing once the lease may have run out, and goes on when nobody took it meanwhile."""
    server = LeaseServer()
    holder = candidate(server, "holder")
    await holder.acquire()
    keeping = asyncio.create_task(holder.keep())
    await asyncio.sleep(30)
    server.away.add("holder")
    await asyncio.sleep(300)
    assert (False, False) == (holder.valid, keeping.done())

    server.away.clear()
    async with asyncio.timeout(10):
        await holder.wait_valid()
    await ended(keeping)


@virtual_time
async def test_who_finds_the_lease_in_other_hands_is_done() -> None:
    """What comes back from a pause ends instead of writing beside its successor."""
    server = LeaseServer()
    first, second = candidate(server, "first"), candidate(server, "second")
    await first.acquire()
    server.away.add("first")
    keeping = asyncio.create_task(first.keep())
    await second.acquire()
    server.away.clear()

    with pytest.raises(LeaseLost, match="held by second"):
        await keeping
    assert not first.valid


@virtual_time
async def test_a_lease_that_was_handed_back_is_taken_at_once() -> None:
    """An orderly stop costs no waiting."""
    server = LeaseServer()
    first, second = candidate(server, "first"), candidate(server, "second")
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(1)
    await first.release()
    began = asyncio.get_running_loop().time()
    await waiting

    assert asyncio.get_running_loop().time() - began <= DURATION / 5
    assert not first.valid


@virtual_time
async def test_whose_lease_ran_out_does_not_hand_it_back() -> None:
    """It may be another's by now."""
    server = LeaseServer()
    first, second = candidate(server, "first"), candidate(server, "second")
    await first.acquire()
    await second.acquire()
    await first.release()

    assert server.lease is not None
    assert "second" == server.lease["spec"]["holderIdentity"]


@virtual_time
async def test_transitions_are_counted_and_renewals_are_not() -> None:
    """`leaseTransitions` and `acquireTime` are about holders."""
    server = LeaseServer()
    first, second = candidate(server, "first"), candidate(server, "second")
    await first.acquire()
    keeping = asyncio.create_task(first.keep())
    await asyncio.sleep(60)
    await ended(keeping)
    assert server.lease is not None
    assert 1 == server.lease["spec"]["leaseTransitions"]
    await second.acquire()

    assert 2 == server.lease["spec"]["leaseTransitions"]
