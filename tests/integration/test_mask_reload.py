"""Named masks from file to query: real files, threads, registry and batcher (NumPy scores)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from kosine.errors import UnknownMask
from kosine.loading.admission import Memory
from kosine.serving.batch import Answer
from kosine.serving.request import SearchOptions, SearchRequest
from kosine.serving.searching import Terms, search
from tests.kit.answered import Answered
from tests.kit.loads import Rig, index_settings, rig
from tests.kit.npy_files import npy_bytes
from tests.kit.serving import never
from tests.kit.writers import publish, put_whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from kosine.serving.masks import Masks
    from kosine.settings import IndexSettings

ROWS, DIM = 60, 4
CLASSES = 5
"""Generation g of the mask lets pass the rows of class g."""


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """Events instead of lines."""
    with capture_logs() as events:
        yield events


def vectors(seed: int = 0, *, rows: int = ROWS) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float32)


def of_class(generation: int, *, rows: int = ROWS) -> NDArray[np.bool_]:
    passed: NDArray[np.bool_] = np.arange(rows) % CLASSES == generation % CLASSES
    return passed


async def put(path: Path, array: NDArray[Any]) -> None:
    """Publish one file."""
    await asyncio.to_thread(publish, path, array)


async def find(service: Rig, *, queries: int = 1, **options: Any) -> list[set[Any]]:
    """Ids that each of several queries of one request finds, of all that it may."""
    loop = asyncio.get_running_loop()
    with service.registry.lease("items") as version:
        request = SearchRequest(
            vectors=vectors(9, rows=queries), many=True, k=ROWS, options=SearchOptions(**options)
        )
        terms = Terms(deadline=loop.time() + 20, abandoned=never)
        result = await search(version, request, terms)
    return [set(each.ids) for each in result.outcomes if isinstance(each, Answer)]


def rows_where(passed: NDArray[np.bool_]) -> set[int]:
    return set(np.flatnonzero(passed).tolist())


def masks(service: Rig) -> Masks:
    """Those that serve."""
    version = service.registry.current("items")
    assert version is not None
    return version.masks


def settings_of(folder: Path, **changes: Any) -> IndexSettings:
    return index_settings(folder / "items.npy", masks={"in_stock": str(folder / "in_stock.npy")}, **changes)


async def serving(service: Rig, folder: Path, **changes: Any) -> None:
    """Publish and serve generation 0 of both files."""
    await put(folder / "items.npy", vectors())
    await put(folder / "in_stock.npy", of_class(0))
    await service.apply(items=settings_of(folder, **changes))
    await service.registry.until(lambda: service.serves() is not None)


async def test_a_mask_is_served_and_its_negation_too(tmp_path: Path) -> None:
    """Either alone, both at once, and beside every other wish."""
    async with rig() as service:
        await serving(service, tmp_path)
        passed = of_class(0)
        assert [rows_where(passed)] == await find(service, mask="in_stock")
        assert [rows_where(~passed)] * 3 == await find(service, not_mask="in_stock", queries=3)
        assert [set()] == await find(service, mask="in_stock", not_mask="in_stock")
        assert [rows_where(passed) - {0, 5}] == await find(service, mask="in_stock", exclude=[0, 5, 1])
        assert [{10}] == await find(service, mask="in_stock", include=[1, 10])
        with pytest.raises(UnknownMask):
            await find(service, mask="sold_out")


async def test_a_mask_alone_is_replaced_without_a_build(tmp_path: Path, logged: list[Any]) -> None:
    """The version keeps its name and its engine; the status tells which mask is in force."""
    async with rig() as service:
        await serving(service, tmp_path)
        version, before = service.registry.current("items"), masks(service).named["in_stock"]
        await put(tmp_path / "in_stock.npy", of_class(1))
        await service.registry.until(lambda: masks(service).named["in_stock"] is not before)
        await service.registry.until(lambda: service.registry.load_status("items").stage is None)

        assert version is service.registry.current("items")
        assert 1 == len(service.device.built)
        assert [rows_where(of_class(1))] == await find(service, mask="in_stock")
        [event] = [each for each in logged if each["event"] == "masks_published"]
        assert {"in_stock": ROWS // CLASSES} == event["true"]
        assert {"in_stock": masks(service).named["in_stock"].short_digest} == event["masks"]


async def test_the_watcher_sees_a_mask(tmp_path: Path) -> None:
    """With a poll of an hour a replaced mask is served as soon as it has settled."""
    async with rig() as service:
        await serving(service, tmp_path, watch=True, interval=3600)
        for generation in (1, 2):
            before = masks(service)
            await put(tmp_path / "in_stock.npy", of_class(generation))
            await service.registry.until(lambda: masks(service) is not before)  # noqa: B023
            assert [rows_where(of_class(generation))] == await find(service, mask="in_stock")


async def test_no_request_sees_two_masks(tmp_path: Path) -> None:
    """Law 1 for masks: replaced again and again under load, all queries of a request see one of them."""
    generations = 12
    async with rig() as service:
        await serving(service, tmp_path)
        answered, stop = Answered(), asyncio.Event()

        async def ask() -> list[list[set[Any]]]:
            seen = []
            while not stop.is_set():
                seen.append(await find(service, mask="in_stock", queries=11))
                answered.note(frozenset(seen[-1][0]))
            return seen

        async with asyncio.TaskGroup() as group:
            callers = [group.create_task(ask()) for _ in range(4)]
            for generation in range(1, generations):
                before = masks(service)
                await put(tmp_path / "in_stock.npy", of_class(generation))
                await service.registry.until(lambda: masks(service) is not before)  # noqa: B023
                await answered.until(frozenset(rows_where(of_class(generation))))
            stop.set()

        classes = [rows_where(of_class(each)) for each in range(CLASSES)]
        answers = [answer for caller in callers for answer in caller.result()]
        assert all(answer[0] in classes and answer == [answer[0]] * 11 for answer in answers)
        assert {frozenset(each) for each in classes} == {frozenset(answer[0]) for answer in answers}
        assert 1 == len(service.device.built)


@pytest.mark.parametrize(
    ("content", "code", "stage"),
    [
        (npy_bytes(of_class(1, rows=ROWS - 1)), "mask_length", "gate"),
        (npy_bytes(of_class(1).astype(np.int8)), "dtype_not_allowed", "gate"),
        (npy_bytes(of_class(1))[:-1] + b"\7", "mask_invalid", "check"),
        (None, "source_missing", "fingerprint"),
    ],
)
async def test_a_bad_mask_is_refused_and_the_good_one_serves_on(
    tmp_path: Path, content: bytes | None, code: str, stage: str
) -> None:
    """Law 2 for masks, until a good one comes."""
    async with rig() as service:
        await serving(service, tmp_path)
        if content is None:
            (tmp_path / "in_stock.npy").unlink()
        else:
            put_whole(tmp_path / "in_stock.npy", content)
        await service.registry.until(lambda: service.error() == (code, stage))
        assert [rows_where(of_class(0))] == await find(service, mask="in_stock")

        await put(tmp_path / "in_stock.npy", of_class(3))
        await service.registry.until(lambda: service.error() is None)
        assert [rows_where(of_class(3))] == await find(service, mask="in_stock")


async def test_vectors_wait_for_masks_of_their_length(tmp_path: Path) -> None:
    """The old version serves with its own mask until both fit, whichever is written first."""
    async with rig() as service:
        await serving(service, tmp_path)
        old = service.serves()
        await put(tmp_path / "items.npy", vectors(1, rows=ROWS - 10))
        await service.registry.until(lambda: service.error() == ("mask_length", "gate"))
        assert old == service.serves()
        assert [rows_where(of_class(0))] == await find(service, mask="in_stock")

        await put(tmp_path / "in_stock.npy", of_class(2, rows=ROWS - 10))
        await service.registry.until(lambda: service.serves() != old)
        assert [rows_where(of_class(2, rows=ROWS - 10))] == await find(service, mask="in_stock")


async def test_dropped_rows_are_dropped_from_masks(tmp_path: Path) -> None:
    """When both are loaded, and when the mask comes later by itself."""
    broken = vectors()
    broken[[0, 7, 59]] = np.nan
    async with rig() as service:
        await put(tmp_path / "items.npy", broken)
        await put(tmp_path / "in_stock.npy", of_class(0))
        await service.apply(items=settings_of(tmp_path, invalid_rows="drop"))
        await service.registry.until(lambda: service.serves() is not None)
        assert [rows_where(of_class(0)) - {0}] == await find(service, mask="in_stock")

        before = masks(service)
        await put(tmp_path / "in_stock.npy", of_class(2))
        await service.registry.until(lambda: masks(service) is not before)
        assert [rows_where(of_class(2)) - {7}] == await find(service, mask="in_stock")
        assert 1 == len(service.device.built)


async def test_masks_are_configured_without_a_build(tmp_path: Path) -> None:
    """Added, renamed and removed beside the version that serves."""
    async with rig() as service:
        await serving(service, tmp_path)
        await put(tmp_path / "new.npy", of_class(4))
        for uris in (
            {"in_stock": "in_stock.npy", "new": "new.npy"},
            {"fresh": "new.npy"},
            {},
        ):
            named = {name: str(tmp_path / file) for name, file in uris.items()}
            await service.apply(items=index_settings(tmp_path / "items.npy", masks=named))
            await service.registry.until(lambda: uris.keys() == masks(service).named.keys())  # noqa: B023
            if "fresh" in uris:
                assert [rows_where(of_class(4))] == await find(service, mask="fresh")
        assert 1 == len(service.device.built)


async def test_a_forced_reload_tells_that_masks_were_replaced(tmp_path: Path) -> None:
    """`masks_published` for another mask, `unchanged` for a touched one, and every file is read again."""
    async with rig() as service:
        await serving(service, tmp_path, interval=3600)
        version = service.serves()
        await put(tmp_path / "in_stock.npy", of_class(1))
        replaced = await service.catalog.force("items")
        await put(tmp_path / "in_stock.npy", of_class(1))
        touched = await service.catalog.force("items")
        assert [("masks_published", version), ("unchanged", version)] == [
            (each.outcome, each.version) for each in (replaced, touched)
        ]
        assert [rows_where(of_class(1))] == await find(service, mask="in_stock")


async def test_masks_are_admitted(tmp_path: Path) -> None:
    """Law 7: the refusal tells what masks need."""
    room = {"limit": 2**40}
    async with rig(probe=lambda: Memory(limit=room["limit"], used=0)) as service:
        await serving(service, tmp_path)
        room["limit"] = 1
        await put(tmp_path / "in_stock.npy", of_class(1))
        await service.registry.until(lambda: service.error() == ("wont_fit", "admit"))
        failure = service.registry.load_status("items").last_error
        assert failure is not None
        assert (ROWS, 0) == (failure.facts["mask_bytes"], failure.facts["matrix_bytes"])
        assert [rows_where(of_class(0))] == await find(service, mask="in_stock")
