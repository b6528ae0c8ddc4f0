"""The registry as a state machine, and the laws of publication in single steps."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from kosine.errors import IndexNotReady, LoadCode, ShuttingDown, Stage, UnknownIndex
from kosine.serving.dispatcher import Dispatcher
from kosine.serving.registry import Registry
from kosine.serving.status import IndexState, LoadFailure, LoadStatus
from tests.kit.engines import NumpyEngine, matrix_of
from tests.kit.serving import VirtualDevice, never, unit, version_of

if TYPE_CHECKING:
    from kosine.serving.version import Lease, Version

NAMES = st.sampled_from(["items", "users"])


class RegistryMachine(RuleBasedStateMachine):
    """Random publications, withdrawals, removals and leases against a model of three dicts."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.count = 0
        self.current: dict[str, str | None] = {}
        self.engines: dict[str, NumpyEngine] = {}
        self.held: dict[str, int] = {}
        self.registry, self.dispatcher = self.run(self._start())

    async def _start(self) -> tuple[Registry, Dispatcher]:
        return Registry(), Dispatcher(VirtualDevice())

    def run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    @rule(name=NAMES)
    def declare(self, name: str) -> None:
        self.registry.declare(name, source="items.npy", required=True)
        self.current.setdefault(name, None)

    @rule(name=NAMES)
    def publish(self, name: str) -> None:
        self.count += 1
        label = f"v{self.count}"
        engine = NumpyEngine(matrix=matrix_of(np.eye(4)))

        async def publish() -> None:
            self.registry.publish(name, version_of(self.dispatcher, name=name, version=label, engine=engine))

        if name not in self.current:
            with pytest.raises(UnknownIndex):
                self.run(publish())
            return
        self.run(publish())
        self.current[name] = label
        self.engines[label] = engine

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        async def remove() -> None:
            # Leases may be out, and then it would wait for them.
            task = asyncio.ensure_future(self.registry.remove(name))
            await asyncio.sleep(0)
            task.cancel()

        self.run(remove())
        self.current.pop(name, None)

    @rule(target=leases, name=NAMES)
    def lease(self, name: str) -> tuple[Lease, Version] | None:
        if name not in self.current:
            with pytest.raises(UnknownIndex):
                self.registry.lease(name)
            return None
        if self.current[name] is None:
            with pytest.raises(IndexNotReady):
                self.registry.lease(name)
            return None
        lease = self.registry.lease(name)
        version = lease.__enter__()
        assert self.current[name] == version.info.version
        self.held[version.info.version] = self.held.get(version.info.version, 0) + 1
        return lease, version

    @rule(held=consumes(leases))
    def release(self, held: tuple[Lease, Version] | None) -> None:
        if held is None:
            return
        lease, version = held
        lease.__exit__(None, None, None)
        self.held[version.info.version] -= 1

    @rule(held=leases)
    def a_leased_version_answers(self, held: tuple[Lease, Version] | None) -> None:
        if held is None or not self.held[held[1].info.version]:
            return
        answer = self.run(held[1].batcher.search(unit(4, 2), 1, deadline=1e12, abandoned=never))
        assert answer.ids == [2]

    @invariant()
    def exactly_the_versions_in_use_are_held(self) -> None:
        """A version is freed once it is neither current nor leased, and never before."""

        async def settle() -> None:
            pending = {
                task
                for task, version in self.registry._retiring.items()
                if not self.held.get(version.info.version)
            }
            if pending:
                await asyncio.wait(pending, timeout=5)

        self.run(settle())
        in_use = {label for label in self.current.values() if label} | {k for k, n in self.held.items() if n}
        assert in_use == {label for label, engine in self.engines.items() if not engine.closed}

    @invariant()
    def names_are_the_declared_ones(self) -> None:
        assert sorted(self.current) == self.registry.names()

    def teardown(self) -> None:
        async def finish() -> None:
            await self.registry.close()
            await self.dispatcher.close()

        self.run(finish())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()


TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = hypothesis_settings(
    max_examples=15, stateful_step_count=30, deadline=None, derandomize=True
)


@pytest.fixture
async def registry() -> Registry:
    return Registry()


async def test_a_query_bound_before_a_publication_is_answered_by_the_old_version(registry: Registry) -> None:
    """Law 1: the version is bound when the query is enqueued; publishing does not rebind it."""
    dispatcher = Dispatcher(VirtualDevice(seconds=0.01))
    registry.declare("items", source="items.npy", required=True)
    old_engine = NumpyEngine(matrix=matrix_of(np.eye(4)))
    new_engine = NumpyEngine(matrix=matrix_of(np.eye(4)[::-1]))
    registry.publish("items", version_of(dispatcher, version="old", engine=old_engine))

    async def query() -> tuple[str, list[int] | list[str]]:
        with registry.lease("items") as version:
            answer = await version.batcher.search(unit(4, 0), 1, deadline=1e12, abandoned=never)
            return version.info.version, answer.ids

    before = asyncio.ensure_future(query())
    await asyncio.sleep(0)
    registry.publish("items", version_of(dispatcher, version="new", engine=new_engine))
    after = asyncio.ensure_future(query())

    assert [("old", [0]), ("new", [3])] == [await before, await after]


async def test_withdrawing_waits_until_the_old_version_is_freed(registry: Registry) -> None:
    """resource_preserving: the memory is back before the next load begins, and the index answers 503."""
    engine = NumpyEngine(matrix=matrix_of(np.eye(4)))
    registry.declare("items", source="items.npy", required=True)
    registry.publish("items", version_of(Dispatcher(VirtualDevice()), engine=engine))

    await registry.withdraw("items")

    assert engine.closed
    with pytest.raises(IndexNotReady):
        registry.lease("items")


FAILURE = LoadFailure(
    code=LoadCode.BAD_MAGIC,
    stage=Stage.GATE,
    detail="expected an .npy file",
    at=datetime(2026, 1, 1, tzinfo=UTC),
    consecutive=3,
)


@pytest.mark.parametrize(
    ("law", "published", "status", "expected"),
    [
        ("declared is loading", False, LoadStatus(), IndexState.LOADING),
        ("a first load that failed is failed", False, LoadStatus(last_error=FAILURE), IndexState.FAILED),
        (
            "a retry of a first load is loading",
            False,
            LoadStatus(stage=Stage.FETCH, last_error=FAILURE),
            IndexState.LOADING,
        ),
        ("published is available", True, LoadStatus(), IndexState.AVAILABLE),
        (
            "law 2: a failed reload changes nothing",
            True,
            LoadStatus(last_error=FAILURE),
            IndexState.AVAILABLE,
        ),
    ],
)
async def test_state(
    registry: Registry, law: str, published: bool, status: LoadStatus, expected: IndexState
) -> None:
    """What an index is called follows from its version and its last load."""
    registry.declare("items", source="items.npy", required=True)
    if published:
        registry.publish("items", version_of(Dispatcher(VirtualDevice())))
    registry.note("items", status)

    assert expected == registry.state("items"), law
    await registry.close()


async def test_an_index_whose_first_load_failed_says_why(registry: Registry) -> None:
    """H7: 503 with the load's code and a time to retry, not 404."""
    registry.declare("items", source="items.npy", required=True)
    registry.note("items", LoadStatus(last_error=FAILURE))

    with pytest.raises(IndexNotReady) as refused:
        registry.lease("items")

    assert {"state": "failed", "reason": "bad_magic"} == refused.value.facts
    assert 10 == refused.value.retry_after


async def test_a_name_nobody_configured_is_not_echoed_raw(registry: Registry) -> None:
    """H6: a hostile name stays out of messages, logs and metrics."""
    with pytest.raises(UnknownIndex) as refused:
        registry.lease("a\r\nSet-Cookie: x")

    assert "Set-Cookie" not in refused.value.detail


async def test_closing_answers_leaseholders_within_the_grace(registry: Registry) -> None:
    """A hung engine does not keep the process: after the grace whoever waits is told to go elsewhere."""
    registry.declare("items", source="items.npy", required=True)
    registry.publish("items", version_of(Dispatcher(VirtualDevice(seconds=3600))))

    async def query() -> None:
        with registry.lease("items") as version:
            await version.batcher.search(unit(4, 0), 1, deadline=1e12, abandoned=never)

    waiting = asyncio.ensure_future(query())
    await asyncio.sleep(0.01)

    await registry.close(grace=0.01)

    with pytest.raises(ShuttingDown):
        await waiting
