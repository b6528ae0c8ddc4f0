"""Real files, threads, registry and batcher (NumPy scores): what a reload changes, and what it must not.

Rows of the fault catalogue: N9, N10, N11, N12 (G6), N13, N16, N17 (G5), N18, N19, N20, N22.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from structlog.testing import capture_logs

from kosine.errors import DimMismatch, IndexNotReady, LoadCode, LoadError, Stage, UnknownIndex
from kosine.loading.admission import Admission, Memory
from kosine.loading.attempt import _outcome
from kosine.loading.job import LoadJob
from kosine.loading.local import LocalStorage
from kosine.loading.pipeline import Pipeline
from kosine.serving.status import DroppedRows, IndexState
from kosine.settings import GuardSettings
from kosine.source_uri import COMMAND_LINE
from tests.kit.engines import NumpyDevice, NumpyEngine
from tests.kit.loads import Rig, Staged, index_settings, memory, rig
from tests.kit.npy_files import npy_bytes
from tests.kit.writers import publish, rewrite_in_place, stamped, write_torn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kosine.engines.matrix import Order
    from kosine.loading.attempt import Loaded
    from kosine.loading.job import Unchanged
    from kosine.settings import IndexSettings

ROWS, DIM = 300, 8
DESCRIPTORS = Path("/proc/self/fd")


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """Events instead of lines."""
    with capture_logs() as events:
        yield events


def unit_rows(seed: int, *, rows: int = ROWS, dim: int = DIM) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The file of generation `seed`."""
    vectors = np.random.default_rng(seed).standard_normal((rows, dim))
    unit: np.ndarray[Any, np.dtype[np.float64]] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit.astype(np.float32)


async def put(path: Path, seed: int, **shape: int) -> None:
    """Publish generation `seed`."""
    await asyncio.to_thread(publish, path, unit_rows(seed, **shape))


async def answers_as(service: Rig, seed: int, name: str = "items") -> bool:
    """Whether `name` finds row 7 of generation `seed` with score 1."""
    answer = await service.ask(name, unit_rows(seed)[7])
    return answer.ids == [7] and answer.scores[0] > 0.9999


async def test_a_replaced_file_is_served(tmp_path: Path) -> None:
    """The first version and each later one, found by the poll alone."""
    path = tmp_path / "items.npy"
    await put(path, 0)
    async with rig() as service:
        await service.apply(items=index_settings(path))
        for seed in range(4):
            await put(path, seed)
            await service.registry.until(lambda: len(service.registry.published) > seed)  # noqa: B023
            assert await answers_as(service, seed)

        assert IndexState.AVAILABLE is service.registry.state("items")
        assert 4 == len(set(service.registry.published))


async def test_the_watcher_beats_the_poll(tmp_path: Path) -> None:
    """With a poll of an hour a replaced file is served as soon as it has settled."""
    path = tmp_path / "items.npy"
    await put(path, 0)
    async with rig() as service:
        await service.apply(items=index_settings(path, watch=True, interval=3600))
        await service.registry.until(lambda: bool(service.registry.published))
        for seed in (1, 2, 3):
            await put(path, seed)
            await service.registry.until(lambda: len(service.registry.published) > seed)  # noqa: B023
            assert await answers_as(service, seed)


async def test_invalid_rows_are_left_out_on_demand(tmp_path: Path, logged: list[Any]) -> None:
    """N6: the others keep their numbers, the version tells what it lacks, guards count what is left."""
    path = tmp_path / "items.npy"
    vectors = unit_rows(0)
    vectors[:5] = np.nan
    await asyncio.to_thread(publish, path, vectors)
    async with rig() as service:
        settings = index_settings(path, invalid_rows="drop", guard=GuardSettings(max_shrink_percent=10))
        await service.apply(items=settings)
        await service.registry.until(lambda: service.serves() is not None)
        assert await answers_as(service, 0)
        version = service.registry.current("items")
        assert version is not None
        told = DroppedRows(not_finite=5, zero=0, first=(0, 1, 2, 3, 4))
        assert (ROWS - 5, told) == (version.info.rows, version.info.dropped)
        events = [event for event in logged if event["event"] == "rows_dropped"]
        assert [("items", 5)] == [(event["index"], event["not_finite"]) for event in events]

        vectors[: ROWS // 2] = np.nan
        await asyncio.to_thread(publish, path, vectors)
        await service.registry.until(lambda: service.error() == ("guard_failed", "check"))
        assert version is service.registry.current("items")


# ---- N17, G5: the stage fault matrix ----

LOADING_STAGES = tuple(stage for stage in Stage if stage is not Stage.PUBLISH)


def raise_load_error(stage: Stage) -> Callable[[], None]:
    """A failure somebody thought of."""

    def fault() -> None:
        raise LoadError(LoadCode.SOURCE_UNREADABLE, "the disk is on fire", stage=stage)

    return fault


def raise_anything(_stage: Stage) -> Callable[[], None]:
    """A failure nobody thought of."""

    def fault() -> None:
        raise ZeroDivisionError("a bug")

    return fault


@pytest.mark.parametrize("stage", LOADING_STAGES)
@pytest.mark.parametrize(
    ("fault", "code"),
    [(raise_load_error, LoadCode.SOURCE_UNREADABLE), (raise_anything, LoadCode.DEFECT)],
    ids=["known", "unknown"],
)
async def test_a_failure_at_any_stage_keeps_the_old_version(
    stage: Stage, fault: Callable[[Stage], Callable[[], None]], code: LoadCode, tmp_path: Path
) -> None:
    """N17: the old version answers, the status names stage and code, and the next good file is loaded."""
    path = tmp_path / "items.npy"
    await put(path, 0)
    async with rig() as service:
        await service.apply(items=index_settings(path))
        await service.registry.until(lambda: service.serves() is not None)
        old = service.serves()

        service.loader.at[stage] = fault(stage)
        await put(path, 1)
        await service.registry.until(lambda: service.error() == (code.value, stage.value))
        assert old == service.serves()
        assert IndexState.AVAILABLE is service.registry.state("items")
        assert await answers_as(service, 0)

        await put(path, 2)
        service.loader.at.clear()
        await service.registry.until(lambda: service.serves() != old)
        assert await answers_as(service, 2)
        await service.registry.until(lambda: service.error() is None)


@pytest.mark.parametrize("stage", LOADING_STAGES)
async def test_a_hang_at_any_stage_is_given_up(stage: Stage, tmp_path: Path) -> None:
    """N17: timed_out at that stage, the old version answers, the next load does not wait for the hung one.

    What the hung thread brings when it comes back after all is closed and never served.
    """
    path, released = tmp_path / "items.npy", threading.Event()
    await put(path, 0)
    async with rig(slots=1) as service:
        await service.apply(items=index_settings(path, timeout=0.25))
        await service.registry.until(lambda: service.serves() is not None)
        old = service.serves()

        service.loader.at[stage] = released.wait  # type: ignore[assignment]
        await put(path, 1)
        try:
            await service.registry.until(lambda: service.error() == ("timed_out", stage.value))
            assert old == service.serves()
            assert await answers_as(service, 0)
            await put(path, 2)
            service.loader.at.clear()
            await service.registry.until(lambda: service.serves() != old)
            assert await answers_as(service, 2)
        finally:
            released.set()
        await loader_threads_end()

        assert await answers_as(service, 2)
        assert 2 == len(service.registry.published)
        assert 1 == sum(not engine.closed for engine in service.device.built)


async def loader_threads_end() -> None:
    """Every loader thread, those left behind too."""
    for thread in threading.enumerate():
        if thread.name.startswith("kosine-loader"):
            await asyncio.to_thread(thread.join, 10)
    await asyncio.sleep(0)
    for thread in threading.enumerate():
        if thread.name.startswith("kosine-loader"):
            await asyncio.to_thread(thread.join, 10)


async def test_a_failure_at_publication_keeps_the_old_version(tmp_path: Path) -> None:
    """N17: whatever goes wrong in the last step, the new engine is closed and the old one serves."""
    path = tmp_path / "items.npy"
    await put(path, 0)
    async with rig() as service:
        await service.apply(items=index_settings(path))
        await service.registry.until(lambda: service.serves() is not None)
        old, publishing = service.serves(), service.registry.publish

        def refuse(*_: object) -> None:
            raise ZeroDivisionError("a bug")

        service.registry.publish = refuse  # type: ignore[method-assign, assignment]
        await put(path, 1)
        await service.registry.until(lambda: service.error() == ("defect", "publish"))
        assert old == service.serves()
        assert await answers_as(service, 0)
        assert service.device.built[-1].closed

        service.registry.publish = publishing  # type: ignore[method-assign]
        await put(path, 2)
        await service.registry.until(lambda: service.serves() != old)
        assert await answers_as(service, 2)


@pytest.fixture
def cheap_collections() -> Iterator[None]:
    """Collections need not look at what pytest holds."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("cheap_collections")
def test_a_hundred_failures_at_every_stage_leave_nothing_behind(tmp_path: Path) -> None:
    """N17: files are closed, bookings end, engines are closed, matrices let go, whatever stage failed."""
    path, device, admission = tmp_path / "items.npy", NumpyDevice(), Admission(memory())
    publish(path, unit_rows(0, rows=20_000))
    settings = index_settings(path)
    loader = Staged(Pipeline(storage=LocalStorage(COMMAND_LINE), factory=device, admission=admission))
    job = LoadJob(
        name="items",
        settings=settings,
        sources=loader.look(settings),
        served=None,
        reuse=None,
        cancelled=lambda: False,
        report=lambda *_: None,
    )
    baseline, process, descriptors = 0, psutil.Process(), len(list(DESCRIPTORS.iterdir()))
    for number in range(100 * len(LOADING_STAGES)):
        stage = LOADING_STAGES[number % len(LOADING_STAGES)]
        loader.at = {stage: raise_anything(stage)}
        if stage is not Stage.FINGERPRINT:
            failure = failed_load(loader.load, job)
            assert (LoadCode.DEFECT, stage) == (failure.code, failure.stage)
        if number == 2 * len(LOADING_STAGES):
            baseline = process.memory_info().rss

    # One matrix is 0.6 MB: a hundred of one stage would be 64.
    assert process.memory_info().rss - baseline < 25 * 2**20
    assert [] == [engine for engine in device.built if not engine.closed]
    assert 0 == admission.reserved
    assert descriptors == len(list(DESCRIPTORS.iterdir()))


def failed_load(load: Callable[[LoadJob], Loaded | Unchanged], job: LoadJob) -> LoadError:
    """What a load failed with, as the reloader keeps it."""
    outcome = _outcome(load, job)
    assert isinstance(outcome, LoadError)
    assert outcome.__traceback__ is None
    assert outcome.__context__ is None
    return outcome


async def test_a_device_out_of_memory_keeps_the_old_version(tmp_path: Path) -> None:
    """N18: in the build and in the warm-up: what was made is freed, and the old version serves."""
    path = tmp_path / "items.npy"
    await put(path, 0)
    async with rig() as service:
        await service.apply(items=index_settings(path))
        await service.registry.until(lambda: service.serves() is not None)
        exhausted = LoadError(
            LoadCode.OUT_OF_DEVICE_MEMORY, "the device is full", stage=Stage.BUILD, needed=1
        )
        service.device.fail_build = exhausted
        await put(path, 1)
        await service.registry.until(lambda: service.error() == ("out_of_device_memory", "build"))
        assert await answers_as(service, 0)

        service.device.fail_build = None
        service.device.options["fail_on"] = lambda _: LoadError(
            LoadCode.OUT_OF_DEVICE_MEMORY, "the device is full", stage=Stage.WARM_UP
        )
        await put(path, 2)
        await service.registry.until(lambda: service.error() == ("out_of_device_memory", "warm_up"))
        assert await answers_as(service, 0)
        assert service.device.built[-1].closed

        service.device.options.clear()
        await put(path, 3)
        await service.registry.until(lambda: len(service.registry.published) == 2)
        assert await answers_as(service, 3)


class LyingEngine(NumpyEngine):
    """Scores as if half of the matrix were missing."""

    def _answer(self, matrix: Any, queries: Any, k: int) -> Any:
        rows, scores = super()._answer(matrix, queries, k)
        return rows, scores * np.float32(0.5)


class LyingDevice(NumpyDevice):
    """Builds them while `lies`."""

    lies = False

    def build(self, matrix: Any, *, metric: str, max_k: int, max_rows: int) -> NumpyEngine:
        if not self.lies:
            return super().build(matrix, metric=metric, max_k=max_k, max_rows=max_rows)
        engine = LyingEngine(matrix=matrix, metric=metric, max_k=max_k)
        self.built.append(engine)
        return engine


@pytest.mark.parametrize("metric", ["cosine", "dot"])
async def test_an_engine_that_scores_wrongly_is_not_published(metric: Any, tmp_path: Path) -> None:
    """Sampled rows that do not find themselves: `self_check_failed`, engine closed, old version serves."""
    path, device = tmp_path / "items.npy", LyingDevice()
    await put(path, 0)
    async with rig(device=device) as service:
        await service.apply(items=index_settings(path, metric=metric))
        await service.registry.until(lambda: service.serves() is not None)
        old = service.serves()
        device.lies = True
        await put(path, 1)
        await service.registry.until(lambda: service.error() == ("self_check_failed", "warm_up"))

        assert old == service.serves()
        assert device.built[-1].closed


# ---- files ----


async def test_a_new_dimension_is_refused_unless_allowed(tmp_path: Path) -> None:
    """N9: by default the old version stays; allowed, queries of both kinds get their own answer."""
    path = tmp_path / "items.npy"
    await put(path, 0)
    async with rig() as service:
        await service.apply(items=index_settings(path))
        await service.registry.until(lambda: service.serves() is not None)
        await put(path, 1, dim=12)
        await service.registry.until(lambda: service.error() == ("dim_changed", "gate"))
        assert await answers_as(service, 0)

        with service.registry.lease("items") as old:
            await service.apply(items=index_settings(path, guard=GuardSettings(dim_change="allow")))
            await service.registry.until(lambda: len(service.registry.published) == 2)
            in_flight = await old.batcher.search(
                unit_rows(0)[7],
                1,
                deadline=asyncio.get_running_loop().time() + 10,
                abandoned=lambda: False,
            )
        assert [7] == in_flight.ids
        with pytest.raises(DimMismatch):
            await service.ask("items", unit_rows(0)[7])
        assert [7] == (await service.ask("items", unit_rows(1, dim=12)[7])).ids


async def test_vectors_and_ids_are_one_unit(tmp_path: Path) -> None:
    """N10: ids of another length, duplicates, or none: the old pair serves until both fit again."""
    path, ids_path = tmp_path / "items.npy", tmp_path / "ids.npy"
    await put(path, 0)
    publish(ids_path, np.arange(ROWS) + 1000)
    async with rig() as service:
        await service.apply(items=index_settings(path, ids=str(ids_path)))
        await service.registry.until(lambda: service.serves() is not None)
        assert [1007] == (await service.ask("items", unit_rows(0)[7])).ids

        admitted: list[Stage] = []
        service.loader.at[Stage.ADMIT] = lambda: admitted.append(Stage.ADMIT)
        await put(path, 1, rows=ROWS + 1)
        await service.registry.until(lambda: service.error() == ("ids_length", "gate"))
        assert [] == admitted
        assert [1007] == (await service.ask("items", unit_rows(0)[7])).ids

        await asyncio.to_thread(publish, ids_path, np.zeros(ROWS + 1, np.int64))
        await service.registry.until(lambda: service.error() == ("ids_duplicate", "check"))
        await asyncio.to_thread(ids_path.unlink)
        await service.registry.until(lambda: service.error() == ("source_missing", "fingerprint"))
        assert [1007] == (await service.ask("items", unit_rows(0)[7])).ids

        names = np.array([f"item {row}" for row in range(ROWS + 1)])
        await asyncio.to_thread(publish, ids_path, names)
        await service.registry.until(lambda: len(service.registry.published) == 2)
        answer = await service.ask("items", unit_rows(1, rows=ROWS + 1)[7])
        assert ["item 7"] == answer.ids


async def test_ids_that_change_while_vectors_are_read_are_noticed(tmp_path: Path) -> None:
    """N10: the pair is verified after both were read; one half of another pair never gets through."""
    path, ids_path = tmp_path / "items.npy", tmp_path / "ids.npy"
    await put(path, 0)
    publish(ids_path, np.arange(ROWS))
    async with rig() as service:
        await service.apply(items=index_settings(path, ids=str(ids_path)))
        await service.registry.until(lambda: service.serves() is not None)
        await put(path, 1)

        def other_ids() -> None:
            service.loader.at.clear()
            publish(ids_path, np.arange(ROWS) + 500)

        service.loader.at[Stage.CHECK] = other_ids
        outcome = await service.catalog.force("items")
        assert outcome.error is not None
        assert LoadCode.CHANGED_WHILE_READING is outcome.error.code
        await service.registry.until(lambda: len(service.registry.published) == 2)
        assert [507] == (await service.ask("items", unit_rows(1)[7])).ids


async def test_a_torn_file_is_never_served(tmp_path: Path) -> None:
    """N11: cut short by a writer that died, then overwritten row by row: refused, and then whole."""
    path = tmp_path / "items.npy"
    publish(path, stamped(1, rows=ROWS, dim=DIM))
    async with rig() as service:
        await service.apply(items=index_settings(path))
        await service.registry.until(lambda: service.serves() is not None)
        await asyncio.to_thread(write_torn, path, stamped(2, rows=ROWS, dim=DIM))
        await service.registry.until(lambda: service.error() == ("size_mismatch", "gate"))
        assert (await service.ask("items", stamped(1, rows=1, dim=DIM)[0])).scores[0] > 0.9999

        await asyncio.to_thread(path.write_bytes, npy_bytes(stamped(3, rows=ROWS, dim=DIM)))
        await service.registry.until(lambda: len(service.registry.published) == 2)
        assert (await service.ask("items", stamped(3, rows=1, dim=DIM)[0])).scores[0] > 0.9999


@pytest.mark.parametrize("meanwhile", ["valid", "zero rows"])
async def test_a_file_rewritten_while_it_is_read_is_read_again(meanwhile: str, tmp_path: Path) -> None:
    """N11: `changed_while_reading` names what happened, also where the mixture looked like a bad file."""
    path = tmp_path / "items.npy"
    await put(path, 0)
    async with rig() as service:
        await service.apply(items=index_settings(path))
        await service.registry.until(lambda: service.serves() is not None)
        await put(path, 1)

        def rewrite() -> None:
            service.loader.at.clear()
            zero = np.zeros((ROWS, DIM), np.float32)
            rewrite_in_place(path, unit_rows(2) if meanwhile == "valid" else zero)

        service.loader.at[Stage.FETCH] = rewrite
        outcome = await service.catalog.force("items")
        assert outcome.error is not None
        assert LoadCode.CHANGED_WHILE_READING is outcome.error.code
        await put(path, 2)
        await service.registry.until(lambda: len(service.registry.published) == 2)
        assert await answers_as(service, 2)


async def test_the_last_of_many_rewrites_is_served(tmp_path: Path) -> None:
    """N12, G6: of 200 replacements at most one is built per rest, and the last one serves."""
    path, settle = tmp_path / "items.npy", 0.25
    await put(path, 0)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with rig() as service:
        await service.apply(items=index_settings(path, watch=True, settle=settle))
        await service.registry.until(lambda: service.serves() is not None)
        for seed in range(1, 201):
            await put(path, seed)
            await asyncio.sleep(0.01)
        last = await asyncio.to_thread(service.loader.look, index_settings(path))
        await service.registry.until(
            lambda: (
                (current := service.registry.current("items")) is not None
                and current.info.fingerprint == last.combined.token
            )
        )

        assert await answers_as(service, 200)
        assert len(service.device.built) <= 1 + (loop.time() - began) / settle


async def test_a_source_that_vanishes_keeps_serving(tmp_path: Path) -> None:
    """N13: file deleted, then its folder: `source_missing`, available all the time, back when it is back."""
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "items.npy"
    await put(path, 0)
    async with rig() as service:
        await service.apply(items=index_settings(path, watch=True))
        await service.registry.until(lambda: service.serves() is not None)
        await asyncio.to_thread(path.unlink)
        await service.registry.until(lambda: service.error() == ("source_missing", "fingerprint"))
        await asyncio.to_thread(folder.rmdir)
        assert IndexState.AVAILABLE is service.registry.state("items")
        assert await answers_as(service, 0)

        await asyncio.to_thread(folder.mkdir)
        await put(path, 1)
        await service.registry.until(lambda: len(service.registry.published) == 2)
        assert await answers_as(service, 1)
        await service.registry.until(lambda: service.error() is None)


async def test_what_does_not_fit_is_refused_with_the_numbers(tmp_path: Path) -> None:
    """N16, law 7: before a byte of the body is read; the old version serves, and memory that comes helps."""
    path, limit = tmp_path / "items.npy", 97 * 2**19
    await put(path, 0)

    def probe() -> Memory:
        return Memory(limit=limit, used=0)

    async with rig(probe=probe) as service:
        await service.apply(items=index_settings(path))
        await service.registry.until(lambda: service.serves() is not None)
        await put(path, 1, rows=20_000)
        read: list[Stage] = []
        service.loader.at[Stage.FETCH] = lambda: read.append(Stage.FETCH)
        await service.registry.until(lambda: service.error() == ("wont_fit", "admit"))
        failure = service.registry.load_status("items").last_error
        assert failure is not None
        assert limit == failure.facts["limit_bytes"] < failure.facts["need_bytes"]
        assert [] == read
        assert await answers_as(service, 0)

        limit = 2**30
        await service.registry.until(lambda: len(service.registry.published) == 2)
        assert [7] == (await service.ask("items", unit_rows(1, rows=20_000)[7])).ids


async def test_a_copy_that_does_not_fit_is_left_out(tmp_path: Path) -> None:
    """What an engine keeps beside its items is for speed alone; without memory for it they are served."""
    path, device, limit = tmp_path / "items.npy", NumpyDevice(copy_bytes=2**30), 97 * 2**19
    await put(path, 0)

    def probe() -> Memory:
        return Memory(limit=limit, used=0)

    async with rig(device=device, probe=probe) as service:
        await service.apply(items=index_settings(path))
        await service.registry.until(lambda: service.serves() is not None)
        assert await answers_as(service, 0)
        assert "dim_major" == order_of(device.built[0])
        limit = 2**31
        await put(path, 1)
        await service.registry.until(lambda: len(service.registry.published) == 2)
        assert await answers_as(service, 1)
        assert "row_major" == order_of(device.built[1])


def order_of(engine: NumpyEngine) -> Order:
    assert engine.matrix is not None
    return engine.matrix.order


async def test_memory_the_system_refuses_is_a_load_that_does_not_fit(tmp_path: Path) -> None:
    """N16: a MemoryError that admission did not foresee is `wont_fit` too, not a defect."""
    path = tmp_path / "items.npy"
    await put(path, 0)
    async with rig() as service:
        await service.apply(items=index_settings(path))
        await service.registry.until(lambda: service.serves() is not None)

        def exhausted() -> None:
            raise MemoryError

        service.loader.at[Stage.BUILD] = exhausted
        await put(path, 1)
        await service.registry.until(lambda: service.error() == ("wont_fit", "build"))
        assert await answers_as(service, 0)


class OneAtATime:
    """A machine on which two versions never fit: what the engines hold is what is used."""

    def __init__(self, device: NumpyDevice) -> None:
        self.device = device
        self.most_alive = 0

    def __call__(self) -> Memory:
        alive = [engine for engine in self.device.built if not engine.closed]
        self.most_alive = max(self.most_alive, len(alive))
        held = sum(engine.nbytes for engine in alive)
        return Memory(limit=52 * 2**20, used=held)


async def test_resource_preserving_drops_the_old_version_first(tmp_path: Path) -> None:
    """N16: where memory holds only one the old version goes first, and callers get 503 meanwhile."""
    path, device = tmp_path / "items.npy", NumpyDevice()
    big = {"rows": 10_000, "dim": 64}
    await put(path, 0, **big)
    async with rig(device=device, probe=OneAtATime(device)) as service:
        await service.apply(items=index_settings(path))
        await service.registry.until(lambda: service.serves() is not None)
        await put(path, 1, **big)
        await service.registry.until(lambda: service.error() == ("wont_fit", "admit"))

        met: list[object] = []

        def ask_meanwhile() -> None:
            met.append((service.serves(), [engine.closed for engine in device.built]))

        service.loader.at[Stage.FETCH] = ask_meanwhile
        await service.apply(items=index_settings(path, policy="resource_preserving"))
        await service.registry.until(lambda: len(service.registry.published) == 2)

        assert (None, [True]) == met[0]
        assert [7] == (await service.ask("items", unit_rows(1, **big)[7])).ids


async def test_resource_preserving_does_not_drop_for_nothing(tmp_path: Path) -> None:
    """A file that is refused, does not fit even alone, or holds what serves costs no gap."""
    path = tmp_path / "items.npy"
    await put(path, 0)
    limit = 2**30
    async with rig(probe=lambda: Memory(limit=limit, used=0)) as service:
        await service.apply(items=index_settings(path, policy="resource_preserving"))
        await service.registry.until(lambda: service.serves() is not None)
        version = service.registry.current("items")

        await put(path, 0)
        outcome = await service.catalog.force("items")
        assert ("unchanged", None) == (outcome.outcome, outcome.error)
        await put(path, 1, dim=9)
        assert "failed" == (await service.catalog.force("items")).outcome
        await put(path, 2)
        limit = 1000
        assert "failed" == (await service.catalog.force("items")).outcome

        assert version is service.registry.current("items")
        assert await answers_as(service, 0)
        assert 1 == len(service.device.built)


async def test_guards_keep_a_suspicious_file_out(tmp_path: Path) -> None:
    """N19: valid but far smaller: `guard_failed`, the old version serves."""
    path = tmp_path / "items.npy"
    await put(path, 0)
    async with rig() as service:
        await service.apply(items=index_settings(path, guard=GuardSettings(max_shrink_percent=50)))
        await service.registry.until(lambda: service.serves() is not None)
        await put(path, 1, rows=ROWS // 10)
        await service.registry.until(lambda: service.error() == ("guard_failed", "gate"))
        assert await answers_as(service, 0)

        await service.apply(items=index_settings(path, guard=GuardSettings(max_shrink_percent=95)))
        await service.registry.until(lambda: len(service.registry.published) == 2)


async def test_the_same_content_written_again_builds_nothing(tmp_path: Path) -> None:
    """N20: replaced by itself, copied over, touched: one engine, one version, newest fingerprint and time."""
    path = tmp_path / "items.npy"
    await put(path, 0)
    async with rig() as service:
        await service.apply(items=index_settings(path))
        await service.registry.until(lambda: service.serves() is not None)
        version = service.registry.current("items")
        assert version is not None
        for change in (
            lambda: publish(path, unit_rows(0)),
            lambda: path.write_bytes(npy_bytes(unit_rows(0))),
            lambda: os.utime(path, ns=(1, 1)),
        ):
            before = version.info.fingerprint
            await asyncio.to_thread(change)
            await service.registry.until(lambda: version.info.fingerprint != before)  # noqa: B023

        assert version is service.registry.current("items")
        assert (1, 1e-9) == (len(service.device.built), version.info.modified)


async def test_going_back_is_a_change_like_any_other(tmp_path: Path) -> None:
    """N20: a rollback to an older (smaller mtime) file is served, under the version it had before."""
    path = tmp_path / "items.npy"
    await put(path, 0)
    async with rig() as service:
        await service.apply(items=index_settings(path))
        await service.registry.until(lambda: service.serves() is not None)
        first = service.serves()
        await put(path, 1)
        await service.registry.until(lambda: service.serves() != first)

        def roll_back() -> None:
            publish(path, unit_rows(0))
            os.utime(path, (0, 0))

        await asyncio.to_thread(roll_back)
        await service.registry.until(lambda: service.serves() == first)
        assert await answers_as(service, 0)


async def test_one_bad_index_hurts_no_other(tmp_path: Path) -> None:
    """N22: missing, broken, hanging and good side by side: the good one is available, with two slots."""
    good, broken, hanging = (tmp_path / f"{name}.npy" for name in ("good", "broken", "hanging"))
    for path in (good, hanging):
        await put(path, 0)
    await asyncio.to_thread(broken.write_bytes, b"<html>404</html>")
    released = threading.Event()
    async with rig(slots=2) as service:

        def hang_if_its_turn() -> None:
            if threading.current_thread().name == "kosine-loader-hanging":
                released.wait()

        service.loader.at[Stage.BUILD] = hang_if_its_turn
        await service.apply(
            hanging=index_settings(hanging),
            broken=index_settings(broken),
            missing=index_settings(tmp_path / "missing.npy"),
            good=index_settings(good),
        )
        try:
            await service.registry.until(lambda: service.serves("good") is not None)
            await service.registry.until(lambda: service.error("broken") == ("bad_magic", "gate"))
            await service.registry.until(
                lambda: service.error("missing") == ("source_missing", "fingerprint")
            )
            assert await answers_as(service, 0, "good")
            with pytest.raises(IndexNotReady):
                await service.ask("broken", unit_rows(0)[7])
            assert IndexState.LOADING is service.registry.state("hanging")
        finally:
            released.set()


async def test_loads_take_turns(tmp_path: Path) -> None:
    """`load_slots` bounds how many indexes are read and built at once."""
    running, most = 0, 0
    lock = threading.Lock()
    paths = {f"index{number}": tmp_path / f"{number}.npy" for number in range(6)}
    for path in paths.values():
        await put(path, 0)

    def begin() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)

    def end() -> None:
        nonlocal running
        with lock:
            running -= 1

    async with rig(slots=2) as service:
        service.loader.at = {Stage.GATE: begin, Stage.WARM_UP: end}
        await service.apply(**{name: index_settings(path) for name, path in paths.items()})
        await service.registry.until(lambda: all(service.serves(name) for name in paths))

    assert 1 <= most <= 2


async def test_progress_is_told_while_a_load_runs(tmp_path: Path) -> None:
    """Every stage in order, then none; bytes read never exceed the total."""
    path = tmp_path / "items.npy"
    await put(path, 0, rows=50_000)
    async with rig() as service:
        await service.apply(items=index_settings(path))
        await service.registry.until(lambda: service.serves() is not None)
        await service.registry.until(lambda: service.registry.load_status("items").stage is None)
        told = [status for _, status in service.registry.notes]
        stages = list(dict.fromkeys(status.stage for status in told if status.stage is not None))

    assert [
        Stage.GATE,
        Stage.ADMIT,
        Stage.FETCH,
        Stage.CHECK,
        Stage.BUILD,
        Stage.WARM_UP,
        Stage.CANARY,
    ] == stages
    assert {path.stat().st_size} == {status.bytes_total for status in told if status.stage is not None}
    assert all(status.bytes_read <= status.bytes_total for status in told)


async def test_outcomes_are_counted_and_logged(tmp_path: Path, logged: list[Any]) -> None:
    """I5: a metric and one line name the cause; a failure that repeats is logged once."""
    path = tmp_path / "items.npy"
    await put(path, 0)
    async with rig() as service:
        await service.apply(items=index_settings(path))
        await service.registry.until(lambda: service.serves() is not None)
        await service.catalog.force("items")
        await asyncio.to_thread(path.unlink)
        await service.registry.until(
            lambda: (
                (failure := service.registry.load_status("items").last_error) is not None
                and failure.consecutive >= 3
            )
        )

        def count(outcome: str, stage: str) -> float | None:
            return service.metrics.registry.get_sample_value(
                "kosine_reloads_total", {"index": "items", "outcome": outcome, "stage": stage}
            )

        assert (1.0, 1.0) == (count("published", ""), count("unchanged", ""))
        assert 3.0 <= (count("failed", "fingerprint") or 0)

    lines = [(line["event"], line["log_level"]) for line in logged if line["event"].startswith("reload_")]
    assert [
        ("reload_published", "info"),
        ("reload_unchanged", "debug"),
        ("reload_failed", "warning"),
        ("reload_failed", "debug"),
    ] == lines[:4]


async def test_an_index_that_is_removed_is_gone(tmp_path: Path) -> None:
    """Its running load is called off, its engine freed, its name unknown, its series dropped."""
    path = tmp_path / "items.npy"
    await put(path, 0)
    async with rig() as service:
        await service.apply(items=index_settings(path))
        await service.registry.until(lambda: service.serves() is not None)
        loading = threading.Event()
        service.loader.at[Stage.BUILD] = loading.set
        await put(path, 1)
        await asyncio.to_thread(loading.wait, 10)
        await service.apply()
        await loader_threads_end()

        with pytest.raises(UnknownIndex):
            await service.ask("items", unit_rows(0)[7])
        with pytest.raises(UnknownIndex):
            await service.catalog.force("items")
        assert all(engine.closed for engine in service.device.built)
        assert (
            service.metrics.registry.get_sample_value(
                "kosine_reloads_total", {"index": "items", "outcome": "published", "stage": ""}
            )
            is None
        )


async def settings_changed(service: Rig, settings: IndexSettings) -> None:
    """Apply and wait until the version that serves has them."""
    await service.apply(items=settings)
    await service.registry.until(
        lambda: (current := service.registry.current("items")) is not None and current.settings == settings
    )


async def test_every_kind_of_setting_is_applied_live(tmp_path: Path) -> None:
    """Hot ones keep the version object; the others bring a new one, even of the same bytes."""
    path, other = tmp_path / "items.npy", tmp_path / "other.npy"
    for each in (path, other):
        await put(each, 0)
    async with rig() as service:
        await settings_changed(service, index_settings(path))
        version = service.registry.current("items")
        await settings_changed(service, index_settings(path, k=3))
        assert version is service.registry.current("items")

        await settings_changed(service, index_settings(path, k=3, max_k=20))
        assert version is not service.registry.current("items")
        await settings_changed(service, index_settings(other, k=3, max_k=20))
        current = service.registry.current("items")
        assert current is not None
        assert str(other) == current.info.source
        assert 3 == len(service.device.built)
        assert 1 == len(set(service.registry.published))
