"""Rollback, pin and unpin in virtual time: what they interrupt, and that everybody is answered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from kosine.errors import (
    IndexPinned,
    InternalError,
    LoadCode,
    LoadError,
    ReloadFailed,
    ShuttingDown,
    Stage,
    VersionGone,
)
from tests.kit.loads import virtual_reloader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kosine.loading.reloader import Reloader
    from tests.kit.loads import ScriptedLoader

pytestmark = pytest.mark.looptime(start=0)


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """Events instead of lines."""
    with capture_logs() as events:
        yield events


async def two_versions(reloader: Reloader, loader: ScriptedLoader) -> None:
    """`first` has served, `second` serves."""
    await asyncio.sleep(10)
    loader.fingerprint = "second"
    await reloader.force()


async def test_a_rollback_does_not_wait_for_the_load_of_a_newer_file() -> None:
    """What is being loaded is what nobody wants: it is called off, and not published."""
    async with virtual_reloader() as (reloader, loader, registry, threads):
        await two_versions(reloader, loader)
        threads.seconds, loader.fingerprint = 5.0, "third"
        reloader.hint()
        await asyncio.sleep(2)
        outcome = await reloader.order("rollback")

        assert ("published", "first") == (outcome.outcome, outcome.version)
        await asyncio.sleep(100)
        assert ["first", "second", "first"] == registry.published


async def test_orders_are_carried_out_one_after_another() -> None:
    """A rollback under way is not called off by the next order."""
    async with virtual_reloader() as (reloader, loader, registry, threads):
        await two_versions(reloader, loader)
        threads.seconds = 5.0
        back, again = (asyncio.ensure_future(reloader.order("rollback")) for _ in range(2))

        assert ("first", "second") == ((await back).version, (await again).version)
        assert ["first", "second", "first", "second"] == registry.published


async def test_who_waits_for_a_reload_is_told_of_the_pin() -> None:
    """Before the pin or after it: no reload is coming."""
    async with virtual_reloader() as (reloader, loader, _registry, threads):
        await two_versions(reloader, loader)
        threads.seconds, loader.fingerprint = 5.0, "third"
        waiting = asyncio.ensure_future(reloader.force())
        await asyncio.sleep(2)
        await reloader.order("pin")

        with pytest.raises(IndexPinned):
            await waiting
        with pytest.raises(IndexPinned):
            await reloader.force()


async def test_an_unpinned_source_that_settled_is_loaded_at_once() -> None:
    """It was looked at all the time."""
    async with virtual_reloader() as (reloader, loader, registry, _threads):
        await two_versions(reloader, loader)
        await reloader.order("rollback")
        await asyncio.sleep(100)
        before = asyncio.get_running_loop().time()
        await reloader.order("unpin")
        await asyncio.sleep(0.01)

        assert "second" == registry.published[-1]
        assert asyncio.get_running_loop().time() < before + 0.1


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (LoadError(LoadCode.WONT_FIT, "no", stage=Stage.ADMIT, need_bytes=7), ReloadFailed),
        (LoadError(LoadCode.VERSION_GONE, "no", stage=Stage.GATE), VersionGone),
        (LoadError(LoadCode.CANCELLED, "no", stage=Stage.GATE), ReloadFailed),
        (ZeroDivisionError("a bug"), InternalError),
    ],
)
async def test_a_rollback_that_fails_changes_nothing(failure: Exception, expected: type[Exception]) -> None:
    """Whoever asked is told; the index follows its source as before, and is not pinned."""
    async with virtual_reloader() as (reloader, loader, registry, _threads):
        await two_versions(reloader, loader)
        loader.load_error = failure
        with pytest.raises(expected) as refused:
            await reloader.order("rollback")
        if isinstance(failure, LoadError):
            assert failure.facts.items() <= refused.value.facts.items()  # type: ignore[attr-defined]
        loader.load_error, loader.fingerprint = None, "third"
        await asyncio.sleep(100)

        assert ["first", "second", "third"] == registry.published
        assert registry.load_status("items").pin is None


async def test_orders_of_an_index_that_is_stopped_are_refused() -> None:
    """Those that wait, and those that come."""
    async with virtual_reloader() as (reloader, loader, _registry, threads):
        await two_versions(reloader, loader)
        threads.seconds = 2.0
        waiting = [asyncio.ensure_future(reloader.order("rollback")) for _ in range(2)]
        await asyncio.sleep(0)
        await reloader.close()

        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(outcomes[1], ShuttingDown)
        with pytest.raises(ShuttingDown):
            await reloader.order("pin")
