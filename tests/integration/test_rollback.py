"""Going back to an earlier version, holding one, and following the source again: real files and threads."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from kosine.errors import IndexPinned, ReloadFailed, UnknownVersion, VersionGone
from kosine.loading.admission import Memory
from kosine.loading.copies import Copies
from kosine.loading.manifest import Manifest, Part, encode_manifest
from kosine.settings import CanarySettings, GuardSettings
from tests.kit.loads import index_settings, rig
from tests.kit.npy_files import npy_bytes, unit_rows
from tests.kit.writers import publish, put_whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from kosine.serving.status import LoadStatus
    from tests.kit.loads import Rig

ROWS, DIM = 200, 8


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """Events instead of lines."""
    with capture_logs() as events:
        yield events


def vectors(seed: int, *, rows: int = ROWS) -> NDArray[np.float32]:
    return unit_rows(rows, DIM, seed=seed).astype(np.float32)


@asynccontextmanager
async def service(path: Path, *, copies: Path | None = None, **settings: Any) -> AsyncIterator[Rig]:
    """The index `items` of `path`; with local copies below `copies`."""
    probe = settings.pop("probe", None)
    async with rig(probe=probe, copies=Copies(copies) if copies is not None else None) as running:
        await running.apply(items=index_settings(path, **settings))
        yield running


def status(running: Rig) -> LoadStatus:
    return running.registry.load_status("items")


async def write(running: Rig, path: Path, seed: int, *, rows: int = ROWS) -> str:
    """Put generation `seed` in place and wait until it serves; its version."""
    before = len(running.registry.published)
    await asyncio.to_thread(publish, path, vectors(seed, rows=rows))
    await running.registry.until(lambda: len(running.registry.published) > before)
    await remembered(running)
    version = running.serves()
    assert version is not None
    return version


async def remembered(running: Rig) -> None:
    """The turn that published has ended: a pin of nothing, which every order waits for."""
    await running.catalog.order("items", "unpin")


async def answers_as(running: Rig, seed: int) -> bool:
    answer = await running.ask("items", vectors(seed)[7])
    return answer.ids == [7] and answer.scores[0] > 0.9999


async def two(running: Rig, path: Path) -> tuple[str, str]:
    """Two generations one after another; their versions."""
    return await write(running, path, 1), await write(running, path, 2)


def versions(running: Rig) -> list[str]:
    return [each.version for each in status(running).history]


async def test_the_history_is_bounded_and_newest_first(tmp_path: Path) -> None:
    """The version that serves and `history` before it, each with when it served and how it came to."""
    path = tmp_path / "items.npy"
    async with service(path, history=2) as running:
        written = [await write(running, path, seed) for seed in range(4)]
        assert written[:0:-1] == versions(running)
        first, *earlier = status(running).history
        assert first.retired_at is None
        assert "source" == first.cause
        assert earlier[0].retired_at == first.published_at
        assert (ROWS, DIM) == (first.rows, first.dim)


async def test_the_history_shrinks_while_it_serves(tmp_path: Path) -> None:
    """The setting is hot: nothing is loaded for it."""
    path = tmp_path / "items.npy"
    async with service(path, history=3) as running:
        written = [await write(running, path, seed) for seed in range(3)]
        await running.apply(items=index_settings(path, history=0))
        await running.registry.until(lambda: versions(running) == written[-1:])
        assert 3 == len(running.registry.published)


async def test_a_rollback_serves_the_version_before_and_stays_there(tmp_path: Path) -> None:
    """From the local copy; what is newer in the source is seen and told, not loaded."""
    path = tmp_path / "items.npy"
    async with service(path, copies=tmp_path / "copies") as running:
        first, second = await two(running, path)
        outcome = await running.catalog.order("items", "rollback")
        assert ("published", first) == (outcome.outcome, outcome.version)
        assert await answers_as(running, 1)
        assert [first, second] == versions(running)
        assert "rollback" == status(running).history[0].cause
        await asyncio.to_thread(publish, path, vectors(3))
        await running.registry.until(lambda: status(running).waits)
        assert first == running.serves()
        pin = status(running).pin
        assert pin is not None
        assert first == pin.version


async def test_unpinned_the_source_is_followed_again(tmp_path: Path) -> None:
    """What came meanwhile is loaded by itself."""
    path = tmp_path / "items.npy"
    async with service(path, copies=tmp_path / "copies") as running:
        await two(running, path)
        await running.catalog.order("items", "rollback")
        await asyncio.to_thread(publish, path, vectors(3))
        await running.registry.until(lambda: status(running).waits)
        await running.catalog.order("items", "unpin")
        await running.registry.until(lambda: len(running.registry.published) == 4)
        assert await answers_as(running, 3)
        assert status(running).pin is None


async def test_a_rollback_of_a_rollback_undoes_it(tmp_path: Path) -> None:
    """Also with one version remembered: both take turns, and are loaded by their digest."""
    path = tmp_path / "items.npy"
    async with service(path, copies=tmp_path / "copies", history=1) as running:
        first, second = await two(running, path)
        for expected in (first, second, first):
            assert expected == (await running.catalog.order("items", "rollback")).version
        assert [first, second] == versions(running)


async def test_what_is_still_in_the_source_needs_no_copy(tmp_path: Path) -> None:
    """A manifest's files are never written to again, so they are where they were."""
    path = tmp_path / "items.json"

    def name(seed: int) -> None:
        (tmp_path / f"v{seed}.npy").write_bytes(npy_bytes(vectors(seed)))
        (tmp_path / f"i{seed}.npy").write_bytes(npy_bytes(np.arange(ROWS) + 1000 * seed))
        manifest = Manifest(vectors=Part(f"v{seed}.npy"), ids=Part(f"i{seed}.npy"))
        put_whole(path, encode_manifest(manifest))

    name(1)
    async with service(path) as running:
        await running.registry.until(lambda: len(running.registry.published) == 1)
        name(2)
        await running.registry.until(lambda: len(running.registry.published) == 2)
        await running.catalog.order("items", "rollback")
        answer = await running.ask("items", vectors(1)[7])
        assert [1007] == answer.ids


async def test_bytes_that_are_gone_are_told_with_the_setting_that_keeps_them(tmp_path: Path) -> None:
    """Nothing changes: the newer version serves on, unpinned."""
    path = tmp_path / "items.npy"
    async with service(path) as running:
        _, second = await two(running, path)
        with pytest.raises(VersionGone, match=r"service\.cache_dir"):
            await running.catalog.order("items", "rollback")
        assert second == running.serves()
        assert status(running).pin is None
        assert running.error() is None


async def test_a_corrupt_copy_is_refused(tmp_path: Path, logged: list[Any]) -> None:
    """Hashed before it is used; it is told, removed, and never a version."""
    path, copies = tmp_path / "items.npy", tmp_path / "copies"
    async with service(path, copies=copies) as running:
        _, second = await two(running, path)
        for copy in (copies / "items").glob("*.npy"):
            data = bytearray(copy.read_bytes())
            data[-1] ^= 1
            copy.write_bytes(data)
        with pytest.raises(VersionGone):
            await running.catalog.order("items", "rollback")
        assert second == running.serves()
        assert "copy_unusable" in {event["event"] for event in logged}


async def test_a_version_that_does_not_fit_is_refused_with_numbers(tmp_path: Path) -> None:
    """A rollback is admitted like any load, and what serves is left alone."""
    path = tmp_path / "items.npy"
    used = [0]

    def probe() -> Memory:
        return Memory(limit=2**34, used=used[0])

    async with service(path, copies=tmp_path / "copies", probe=probe) as running:
        _, second = await two(running, path)
        used[0] = 2**34 - 1
        with pytest.raises(ReloadFailed) as refused:
            await running.catalog.order("items", "rollback")
        assert ("wont_fit", "admit", 2**34) == (
            refused.value.facts["reason"],
            refused.value.facts["stage"],
            refused.value.facts["limit_bytes"],
        )
        assert second == running.serves()
        assert status(running).pin is None


async def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    """By its name, with those that are known; and where there is none before, without one."""
    path = tmp_path / "items.npy"
    async with service(path) as running:
        first = await write(running, path, 1)
        for asked in ("0" * 16, None):
            with pytest.raises(UnknownVersion) as refused:
                await running.catalog.order("items", "rollback", asked)
            assert [first] == refused.value.facts["known"]


async def test_a_version_is_named_by_its_name_or_its_digest(tmp_path: Path) -> None:
    """Any of the history; one that serves already is held, not loaded."""
    path = tmp_path / "items.npy"
    async with service(path, copies=tmp_path / "copies", history=2) as running:
        written = [await write(running, path, seed) for seed in range(3)]
        digest = status(running).history[2].digest
        assert written[0] == (await running.catalog.order("items", "pin", digest)).version
        outcome = await running.catalog.order("items", "rollback", written[0])
        assert ("unchanged", written[0]) == (outcome.outcome, outcome.version)
        assert 4 == len(running.registry.published)


async def test_a_pin_holds_what_serves(tmp_path: Path) -> None:
    """Newer files wait, and a forced reload says what to do."""
    path = tmp_path / "items.npy"
    async with service(path) as running:
        first = await write(running, path, 1)
        assert "unchanged" == (await running.catalog.order("items", "pin")).outcome
        with pytest.raises(IndexPinned, match="DELETE"):
            await running.catalog.force("items")
        await asyncio.to_thread(publish, path, vectors(2))
        await running.registry.until(lambda: status(running).waits)
        assert first == running.serves()


async def test_neither_guards_nor_canary_stop_a_rollback(tmp_path: Path) -> None:
    """Somebody asked for that very version."""
    path = tmp_path / "items.npy"
    async with service(path, copies=tmp_path / "copies") as running:
        first = await write(running, path, 1)
        await write(running, path, 2, rows=2 * ROWS)
        guard, canary = GuardSettings(min_rows=2 * ROWS), CanarySettings(max_row_drift_percent=1)
        await running.apply(items=index_settings(path, guard=guard, canary=canary))
        assert first == (await running.catalog.order("items", "rollback")).version


async def test_a_restart_holds_the_pinned_version(tmp_path: Path) -> None:
    """It is remembered beside the copies: the newer file is not served for a moment."""
    path, copies = tmp_path / "items.npy", tmp_path / "copies"
    async with service(path, copies=copies) as running:
        first, second = await two(running, path)
        await running.catalog.order("items", "rollback")
    async with service(path, copies=copies) as running:
        await running.registry.until(lambda: status(running).waits)
        assert first == running.serves()
        assert [first, second] == versions(running)
        assert 1 == len(running.registry.published)
        await running.catalog.order("items", "unpin")
        await running.registry.until(lambda: running.serves() == second)


async def test_a_pinned_version_that_is_gone_is_not_replaced(tmp_path: Path) -> None:
    """After a restart without its bytes: no version rather than the one that somebody went back from."""
    path, copies = tmp_path / "items.npy", tmp_path / "copies"
    async with service(path, copies=copies) as running:
        await two(running, path)
        await running.catalog.order("items", "rollback")
    for copy in (copies / "items").glob("*.npy"):
        copy.unlink()
    async with service(path, copies=copies) as running:
        await running.registry.until(lambda: running.error() == ("version_gone", "gate"))
        assert running.serves() is None
        await running.catalog.order("items", "unpin")
        await running.registry.until(lambda: running.serves() is not None)
        assert await answers_as(running, 2)


async def test_other_settings_wait_for_a_pinned_index_to_be_unpinned(tmp_path: Path) -> None:
    """Where they need a load; `outdated` says so."""
    path = tmp_path / "items.npy"
    async with service(path) as running:
        first = await write(running, path, 1)
        await running.catalog.order("items", "pin")
        await running.apply(items=index_settings(path, max_k=7))
        await running.registry.until(lambda: status(running).outdated and status(running).waits)
        assert 1 == len(running.registry.published)
        await running.catalog.order("items", "unpin")
        await running.registry.until(lambda: len(running.registry.published) == 2)
        assert first == running.serves()


async def test_a_version_of_another_decoding_is_not_made_of_its_bytes(tmp_path: Path) -> None:
    """The same file by another metric is another version; which one to set is told."""
    path = tmp_path / "items.npy"
    async with service(path, copies=tmp_path / "copies") as running:
        await write(running, path, 1)
        await running.apply(items=index_settings(path, metric="dot"))
        await running.registry.until(lambda: len(running.registry.published) == 2)
        with pytest.raises(VersionGone, match="metric cosine"):
            await running.catalog.order("items", "rollback")


async def test_copies_are_bounded_by_the_history_and_go_with_it(tmp_path: Path) -> None:
    """Files of the versions that are remembered, no other; a smaller history removes them."""
    path, copies = tmp_path / "items.npy", tmp_path / "copies"

    def kept() -> int:
        return len(list((copies / "items").glob("*.npy")))

    async with service(path, copies=copies, history=2) as running:
        for seed in range(5):
            await write(running, path, seed)
        await remembered(running)
        assert 3 == kept()
        await running.apply(items=index_settings(path, history=1))
        await running.registry.until(lambda: len(versions(running)) == 2)
        await remembered(running)
        assert 2 == kept()
        assert json.loads((copies / "items" / "history.json").read_bytes())["versions"]
        await running.apply(items=index_settings(path, history=0))
        assert not (copies / "items").exists()


async def test_masks_go_back_with_the_vectors_they_were_made_for(tmp_path: Path) -> None:
    """Each version has its own, as last served with it; while it is pinned they stay, too."""
    path, mask, copies = tmp_path / "items.npy", tmp_path / "mask.npy", tmp_path / "copies"

    def masked() -> int:
        current = running.registry.current("items")
        assert current is not None
        return current.masks.named["in_stock"].true

    def put(seed: int, rows: int, true: int) -> None:
        publish(mask, np.arange(rows) < true)
        publish(path, vectors(seed, rows=rows))

    put(1, ROWS, 10)
    async with service(path, copies=copies, masks={"in_stock": str(mask)}) as running:
        await running.registry.until(lambda: len(running.registry.published) == 1)
        await asyncio.to_thread(publish, mask, np.arange(ROWS) < 20)
        await running.registry.until(lambda: masked() == 20)
        await asyncio.to_thread(put, 2, 2 * ROWS, 30)
        await running.registry.until(lambda: len(running.registry.published) == 2)
        await running.catalog.order("items", "rollback")
        assert 20 == masked()
        await asyncio.to_thread(publish, mask, np.arange(2 * ROWS) < 40)
        await running.registry.until(lambda: status(running).waits)
        assert 20 == masked()
    async with service(path, copies=copies, masks={"in_stock": str(mask)}) as running:
        await running.registry.until(lambda: status(running).waits)
        assert 20 == masked()
        await running.catalog.order("items", "unpin")
        await running.registry.until(lambda: masked() == 40)


async def test_where_memory_holds_one_version_the_other_is_dropped_first(tmp_path: Path) -> None:
    """By `resource_preserving`; what cannot be had is found out before."""
    path, copies = tmp_path / "items.npy", tmp_path / "copies"
    async with service(path, copies=copies, policy="resource_preserving") as running:
        first, second = await two(running, path)
        assert first == (await running.catalog.order("items", "rollback")).version
        for copy in (copies / "items").glob("*.npy"):
            copy.unlink()
        await asyncio.to_thread(publish, path, vectors(3))
        with pytest.raises(VersionGone):
            await running.catalog.order("items", "rollback", second)
        assert first == running.serves()
        assert 3 == len(running.registry.published)
