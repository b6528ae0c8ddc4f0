"""The actor of one index in virtual time: when it looks, when it loads, what it tells."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pytest
from structlog.testing import capture_logs

from kosine.errors import LoadCode, LoadError, ShuttingDown, Stage
from kosine.serving.status import IndexState, ReloadOutcome
from kosine.settings import IndexSettings, RefreshSettings
from kosine.units import Duration
from tests.kit.loads import ScriptedLoader, virtual_reloader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.loads import ObservedRegistry

pytestmark = pytest.mark.looptime(start=0)


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """Events instead of lines."""
    with capture_logs() as events:
        yield events


async def at(when: float) -> None:
    """Move virtual time on."""
    await asyncio.sleep(when - asyncio.get_running_loop().time())


def failing(code: LoadCode = LoadCode.BAD_MAGIC, stage: Stage = Stage.GATE) -> LoadError:
    """A load that fails."""
    return LoadError(code, "no", stage=stage)


def error(registry: ObservedRegistry) -> tuple[LoadCode, Stage, int] | None:
    """Code, stage and number in a row of the last failure."""
    failure = registry.load_status("items").last_error
    return (failure.code, failure.stage, failure.consecutive) if failure is not None else None


def serves(registry: ObservedRegistry) -> str | None:
    """Digest of the version that answers."""
    current = registry.current("items")
    return current.info.digest if current is not None else None


async def test_the_first_version_is_published_once_the_source_has_settled() -> None:
    """The first load is a reload like any other: two equal looks a settle apart, then read."""
    async with virtual_reloader() as (_, loader, registry, _threads):
        assert IndexState.LOADING is registry.state("items")
        await at(1)

        assert [0.0, 0.25, 0.25] == loader.looks
        assert [(0.25, "first")] == loader.loads
        assert "first" == serves(registry)
        assert registry.load_status("items").checked_at is not None


async def test_an_unchanged_source_is_looked_at_and_left_alone() -> None:
    """N20: polls cost a look each, never a load."""
    async with virtual_reloader() as (_, loader, _registry, _threads):
        await at(100)

        assert [0.0, 0.25, 0.25, 30.25, 60.25, 90.25] == loader.looks
        assert 1 == len(loader.loads)


@pytest.mark.parametrize("policy", ["availability_preserving", "resource_preserving"])
async def test_only_a_load_beside_a_version_that_serves_rests(
    policy: Literal["availability_preserving", "resource_preserving"],
) -> None:
    """Who waits for a first version, or while none serves, waits for nothing else."""
    async with virtual_reloader(IndexSettings(uri="items.npy", policy=policy)) as (
        _,
        loader,
        _registry,
        _threads,
    ):
        await at(1)
        loader.fingerprint = "second"
        await at(40)

        assert [False, policy == "availability_preserving"] == [job.pace is not None for job in loader.jobs]


async def test_polls_are_jittered() -> None:
    """Many indexes, and many replicas, do not ask a store all at once: 10 % either way, no more."""
    async with virtual_reloader() as (reloader, loader, _registry, _threads):
        reloader._parts = replace(reloader._parts, rng=random.Random(1))
        await at(3000)

        waits = [later - earlier for earlier, later in zip(loader.looks[3:], loader.looks[4:], strict=False)]
        assert 27 <= min(waits) < 28
        assert 32 < max(waits) <= 33


async def test_a_hint_is_followed_at_once() -> None:
    """A change that the watcher saw serves after one settle, not after the poll."""
    async with virtual_reloader() as (reloader, loader, registry, _threads):
        await at(10)
        loader.fingerprint = "second"
        reloader.hint()
        await at(11)

        assert (10.25, "second") == loader.loads[-1]
        assert ["first", "second"] == registry.published


async def test_a_hint_for_nothing_costs_one_look() -> None:
    """A neighbour's change in the folder is not ours."""
    async with virtual_reloader() as (reloader, loader, _registry, _threads):
        await at(10)
        reloader.hint()
        reloader.hint()
        await at(11)

        assert [10.0] == loader.looks[3:]
        assert 1 == len(loader.loads)


async def test_changes_during_a_load_coalesce_and_the_newest_wins() -> None:
    """N12: a hundred rewrites while one version is built make one more load, of the last of them."""
    async with virtual_reloader() as (reloader, loader, registry, threads):
        await at(10)
        threads.seconds = 5.0
        loader.fingerprint = "second"
        reloader.hint()
        await at(11)
        for number in range(100):
            loader.fingerprint = f"later {number}"
            reloader.hint()
            await asyncio.sleep(0.01)
        await at(60)

        assert ["first", "second", "later 99"] == registry.published
        assert 3 == len(loader.loads)


async def test_a_source_that_changes_without_rest_is_loaded_after_ten_seconds() -> None:
    """N12: a complete file every 200 ms never rests for a settle of 250; the least settle does in the end."""
    async with virtual_reloader() as (reloader, loader, registry, _threads):
        await at(10)
        for number in range(75):
            loader.fingerprint = f"replaced {number}"
            reloader.hint()
            await asyncio.sleep(0.2)

        assert 2 <= len(registry.published) <= 25
        first_load = loader.loads[1][0]
        assert 19.9 <= first_load <= 20.6


async def test_a_source_that_never_rests_is_reported_and_tried_again() -> None:
    """After 15 s without 50 ms of rest: `unsettled`; the old version serves, the end of it is noticed."""
    async with virtual_reloader() as (reloader, loader, registry, _threads):
        await at(10)
        for number in range(800):
            loader.fingerprint = f"torn {number}"
            reloader.hint()
            await asyncio.sleep(0.02)

        assert ["first"] == registry.published
        assert (LoadCode.UNSETTLED, Stage.FINGERPRINT, 1) == error(registry)
        await at(60)
        assert ["first", "torn 799"] == registry.published
        assert error(registry) is None


async def test_a_failure_that_may_pass_is_retried_with_back_off() -> None:
    """The same bytes again after 1, 2, 4, 8 ... s, the old version serving; then the status is clean."""
    async with virtual_reloader() as (reloader, loader, registry, _threads):
        await at(10)
        loader.fingerprint, loader.load_error = "second", failing(LoadCode.WONT_FIT, Stage.ADMIT)
        reloader.hint()
        await at(30)

        assert [10.25, 11.25, 13.25, 17.25, 25.25] == [when for when, _ in loader.loads[1:]]
        assert (LoadCode.WONT_FIT, Stage.ADMIT, 5) == error(registry)
        assert "first" == serves(registry)
        loader.load_error = None
        await at(42)
        assert (41.25, "second") == loader.loads[-1]
        assert "second" == serves(registry)
        assert error(registry) is None


async def test_a_bad_file_is_read_once() -> None:
    """N1: polls and hints do not bring it up again; another file does."""
    async with virtual_reloader() as (reloader, loader, registry, _threads):
        await at(10)
        loader.fingerprint, loader.load_error = "bad", failing()
        for _ in range(20):
            reloader.hint()
            await asyncio.sleep(10)
        assert 2 == len(loader.loads)
        assert (LoadCode.BAD_MAGIC, Stage.GATE, 1) == error(registry)

        loader.fingerprint, loader.load_error = "good", None
        reloader.hint()
        await asyncio.sleep(1)
        assert "good" == serves(registry)
        assert error(registry) is None


async def test_a_bad_file_taken_back_clears_the_status() -> None:
    """Whoever puts the old file back (the same inode) is told that all is well again, without a load."""
    async with virtual_reloader() as (reloader, loader, registry, _threads):
        await at(10)
        loader.fingerprint, loader.load_error = "bad", failing()
        reloader.hint()
        await at(20)
        loader.fingerprint, loader.load_error = "first", None
        reloader.hint()
        await at(21)

        assert error(registry) is None
        assert 2 == len(loader.loads)


async def test_a_missing_source_is_looked_for_at_every_poll() -> None:
    """N13: the old version serves, the status says so, and what comes back is served."""
    async with virtual_reloader() as (_, loader, registry, _threads):
        await at(10)
        loader.look_error = failing(LoadCode.SOURCE_MISSING, Stage.FINGERPRINT)
        await at(100)
        assert [30.25, 60.25, 90.25] == loader.looks[3:]
        assert (LoadCode.SOURCE_MISSING, Stage.FINGERPRINT, 3) == error(registry)
        assert IndexState.AVAILABLE is registry.state("items")

        loader.look_error = None
        await at(130)
        assert error(registry) is None
        assert 1 == len(loader.loads)


async def test_a_first_load_that_fails_leaves_the_index_failed_until_it_works() -> None:
    """N21: the process lives, the index answers 503, and the first good file makes it available."""
    loader = ScriptedLoader(look_error=failing(LoadCode.SOURCE_MISSING, Stage.FINGERPRINT))
    async with virtual_reloader(loader=loader) as (reloader, _, registry, _threads):
        await at(1)
        assert IndexState.FAILED is registry.state("items")
        loader.look_error = None
        reloader.hint()
        await at(2)
        assert IndexState.AVAILABLE is registry.state("items")


async def test_an_unexpected_exception_is_a_defect_and_not_the_end() -> None:
    """The task outlives what nobody thought of: status, back-off, and on with the next look."""
    async with virtual_reloader() as (reloader, loader, registry, _threads):
        await at(10)
        loader.look_error = ZeroDivisionError("a bug")
        reloader.hint()
        await at(12)
        assert (LoadCode.DEFECT, Stage.FINGERPRINT) == error(registry)[:2]  # type: ignore[index]

        loader.look_error, loader.fingerprint = None, "second"
        await at(20)
        assert "second" == serves(registry)
        assert error(registry) is None


async def test_a_load_that_hangs_is_given_up_and_gives_its_slot_back() -> None:
    """N17: `timed_out` names the stage; the next load does not wait for the hung one."""
    settings = IndexSettings(uri="items.npy", refresh=RefreshSettings(timeout=Duration(5)))
    async with virtual_reloader(settings) as (reloader, loader, registry, threads):
        await at(10)
        threads.seconds, loader.fingerprint = 1000.0, "second"
        reloader.hint()
        await at(15.3)
        assert (LoadCode.TIMED_OUT, Stage.GATE, 1) == error(registry)
        assert "first" == serves(registry)

        threads.seconds = 0.0
        await at(17)
        assert "second" == serves(registry)


async def test_a_source_that_hangs_for_ever_is_not_piled_upon() -> None:
    """After four threads that never came back the source is left alone until one does."""
    settings = IndexSettings(uri="items.npy", refresh=RefreshSettings(timeout=Duration(5)))
    async with virtual_reloader(settings) as (reloader, loader, registry, threads):
        await at(10)
        threads.seconds, loader.fingerprint = 1000.0, "second"
        reloader.hint()
        await at(500)
        looks = len(loader.looks)
        assert 4 == threads.left_behind("items")
        assert (LoadCode.TIMED_OUT, Stage.FINGERPRINT) == error(registry)[:2]  # type: ignore[index]
        await at(1000)
        assert looks == len(loader.looks)

        threads.seconds = 0.0
        threads._left_behind.clear()
        await at(1100)
        assert "second" == serves(registry)


async def test_a_forced_load_reads_again_what_looks_the_same() -> None:
    """N20: equal fingerprint and forced: read; equal content: `unchanged`, and no other version."""
    async with virtual_reloader() as (reloader, loader, registry, _threads):
        await at(10)
        outcome = await reloader.force()

        assert ReloadOutcome(outcome="unchanged", version="first") == outcome
        assert 2 == len(loader.loads)
        assert ["first"] == registry.published


async def test_a_forced_load_of_new_content_publishes_it() -> None:
    """The answer comes after the publication and names the version; it waits the least settle only."""
    async with virtual_reloader() as (reloader, loader, registry, _threads):
        await at(10)
        loader.fingerprint = "second"
        outcome = await reloader.force()

        assert ReloadOutcome(outcome="published", version="second") == outcome
        assert "second" == serves(registry)
        assert 10.05 == asyncio.get_running_loop().time()


async def test_everyone_who_asks_before_the_load_shares_it() -> None:
    """Fifty callers at once cost one load."""
    async with virtual_reloader() as (reloader, loader, _registry, _threads):
        await at(10)
        loader.fingerprint = "second"
        outcomes = await asyncio.gather(*(reloader.force() for _ in range(50)))

        assert {"published"} == {outcome.outcome for outcome in outcomes}
        assert 2 == len(loader.loads)


async def test_who_asks_during_a_load_gets_the_next_one() -> None:
    """What was written before asking is in the answer: a load that began earlier may have missed it."""
    async with virtual_reloader() as (reloader, loader, registry, threads):
        await at(10)
        threads.seconds, loader.fingerprint = 5.0, "second"
        early = asyncio.ensure_future(reloader.force())
        await at(12)
        loader.fingerprint = "third"
        late = [asyncio.ensure_future(reloader.force()) for _ in range(3)]

        assert "second" == (await early).version
        assert ["third"] * 3 == [(await one).version for one in late]
        assert ["first", "second", "third"] == registry.published


@pytest.mark.parametrize("where", ["look", "load"])
async def test_a_forced_load_that_fails_says_why(where: str) -> None:
    """Stage and code come back, with the version that serves on."""
    async with virtual_reloader() as (reloader, loader, registry, _threads):
        await at(10)
        setattr(loader, f"{where}_error", failing())
        outcome = await reloader.force()

        assert ("failed", "first") == (outcome.outcome, outcome.version)
        assert outcome.error is not None
        assert (LoadCode.BAD_MAGIC, Stage.GATE) == (outcome.error.code, outcome.error.stage)
        assert "first" == serves(registry)


async def test_a_forced_load_retries_what_was_given_up() -> None:
    """A bad file is read again when somebody asks for it."""
    async with virtual_reloader() as (reloader, loader, _registry, _threads):
        await at(10)
        loader.fingerprint, loader.load_error = "bad", failing()
        reloader.hint()
        await at(20)
        loader.load_error = None

        assert "published" == (await reloader.force()).outcome


async def test_a_caller_who_leaves_hurts_nobody() -> None:
    """A cancelled force leaves the load and its mates alone."""
    async with virtual_reloader() as (reloader, loader, _registry, threads):
        await at(10)
        threads.seconds, loader.fingerprint = 5.0, "second"
        gone, stays = (asyncio.ensure_future(reloader.force()) for _ in range(2))
        await at(12)
        gone.cancel()

        assert "published" == (await stays).outcome


async def test_touched_content_only_moves_the_fingerprint() -> None:
    """N20: the same bytes under another fingerprint are read once, build nothing, and serve on."""
    async with virtual_reloader() as (reloader, loader, registry, _threads):
        await at(10)
        version = registry.current("items")
        loader.fingerprint, loader.content = "touched", "first"
        reloader.hint()
        await at(100)

        assert version is registry.current("items")
        assert version is not None
        assert "touched" == version.info.fingerprint
        assert 2 == len(loader.loads)


async def test_hot_settings_reach_the_version_that_serves() -> None:
    """k, timeout, batch and the like need no load."""
    async with virtual_reloader() as (reloader, loader, registry, _threads):
        await at(10)
        version = registry.current("items")
        assert version is not None
        reloader.configure(msgspec.structs.replace(version.settings, k=3), reload=False)
        await at(20)

        assert 3 == version.settings.k
        assert version is registry.current("items")
        assert 1 == len(loader.loads)


async def test_settings_that_need_another_version_load_one() -> None:
    """Even of the same bytes; until it is there the old one keeps the settings it was made with."""
    async with virtual_reloader() as (reloader, loader, registry, threads):
        await at(10)
        old = registry.current("items")
        assert old is not None
        threads.seconds = 5.0
        reloader.configure(msgspec.structs.replace(old.settings, max_k=20), reload=True)
        await at(12)
        reloader.configure(msgspec.structs.replace(old.settings, max_k=20, k=3), reload=False)
        await at(14)
        assert (1000, 10) == (old.settings.max_k, old.settings.k)
        assert registry.load_status("items").outdated

        await at(20)
        assert not registry.load_status("items").outdated
        new = registry.current("items")
        assert new is not None
        assert new is not old
        assert (20, 3) == (new.settings.max_k, new.settings.k)
        assert 2 == len(loader.loads)


async def test_a_version_stays_outdated_until_settings_are_loaded() -> None:
    """Whoever changed the source learns that the old one still answers, however often the load fails."""
    async with virtual_reloader() as (reloader, loader, registry, _threads):
        await at(10)
        assert not registry.load_status("items").outdated
        loader.load_error = failing(LoadCode.BAD_MAGIC)
        reloader.configure(IndexSettings(uri="other.npy"), reload=True)
        await at(60)
        assert registry.load_status("items").outdated
        assert error(registry) is not None

        loader.load_error, loader.fingerprint = None, "repaired"
        reloader.hint()
        await at(70)
        assert (False, "repaired") == (registry.load_status("items").outdated, serves(registry))


async def test_a_load_with_outdated_settings_is_called_off() -> None:
    """What it brings is closed, not published; the next load has the new settings and answers who asked."""
    async with virtual_reloader() as (reloader, loader, registry, threads):
        await at(10)
        threads.seconds, loader.fingerprint = 5.0, "second"
        asked = asyncio.ensure_future(reloader.force())
        await at(12)
        reloader.configure(IndexSettings(uri="items.npy", max_k=20), reload=True)
        await at(30)

        assert [False, True, False] == [job.cancelled() for job in loader.jobs]
        assert 20 == loader.jobs[-1].settings.max_k
        assert ["first", "second"] == registry.published
        assert [True, False] == [engine.closed for engine in loader.engines[1:]]
        assert "published" == (await asked).outcome
        assert error(registry) is None


async def test_other_settings_give_a_refused_file_another_chance() -> None:
    """N19: a guard that was relaxed lets in what it refused, at once."""
    async with virtual_reloader() as (reloader, loader, registry, _threads):
        await at(10)
        loader.fingerprint, loader.load_error = "smaller", failing(LoadCode.GUARD_FAILED)
        reloader.hint()
        await at(11)
        loader.load_error = None
        reloader.configure(IndexSettings(uri="items.npy"), reload=False)
        await at(12)

        assert "smaller" == serves(registry)


async def test_closing_calls_off_what_runs() -> None:
    """Whoever waits for a forced load is told; nothing is published afterwards."""
    async with virtual_reloader() as (reloader, loader, registry, threads):
        await at(10)
        threads.seconds, loader.fingerprint = 2.0, "second"
        asked = asyncio.ensure_future(reloader.force())
        await at(11)
        await reloader.close()

        with pytest.raises(ShuttingDown):
            await asked
        with pytest.raises(ShuttingDown):
            await reloader.force()
        assert ["first"] == registry.published
        assert loader.jobs[-1].cancelled()


async def test_closing_does_not_wait_for_a_hung_load() -> None:
    """SIGTERM is not held up by a dead file system."""
    async with virtual_reloader() as (reloader, loader, _registry, threads):
        await at(10)
        threads.seconds, loader.fingerprint = 1000.0, "second"
        reloader.hint()
        await at(11)
        await reloader.close(grace=5.0)

        assert 16 == asyncio.get_running_loop().time()
