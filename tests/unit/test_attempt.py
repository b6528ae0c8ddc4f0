"""One load under a time limit: what comes back, what is told meanwhile, and what is let go."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.attempt import Attempt, Loaded
from kosine.loading.job import LoadJob, Sources, Unchanged
from kosine.loading.pipeline import LoadedIndex
from kosine.loading.source import Fingerprint
from kosine.loading.threads import LoaderThreads
from kosine.serving.item_ids import ItemIds
from kosine.settings import IndexSettings, RefreshSettings
from kosine.units import Duration
from tests.kit.engines import NumpyEngine, matrix_of
from tests.kit.loads import version_files
from tests.kit.serving import info_of, masks_of

if TYPE_CHECKING:
    from collections.abc import Callable


class Notes:
    """What the attempt told; lets a test wait for it."""

    def __init__(self) -> None:
        self.all: list[tuple[Stage, int, int]] = []

    def __call__(self, stage: Stage, done: int, total: int) -> None:
        self.all.append((stage, done, total))


def job_of(attempt: Attempt, *, timeout: float = 5.0) -> LoadJob:
    """A job that reports to `attempt`."""
    return LoadJob(
        name="items",
        settings=IndexSettings(uri="items.npy", refresh=RefreshSettings(timeout=Duration(timeout))),
        sources=Sources(vectors=Fingerprint(token="one", size=1)),  # noqa: S106
        served=None,
        reuse=None,
        cancelled=attempt.cancelled,
        report=attempt.report,
    )


async def run(
    load: Callable[[LoadJob], Loaded | Unchanged],
    *,
    notes: Notes | None = None,
    **options: Any,
) -> tuple[Attempt, Loaded | Unchanged | LoadError]:
    """The attempt and what came of it."""
    attempt = Attempt(notes or Notes())
    return attempt, await attempt.run(load, job_of(attempt, **options), threads=LoaderThreads(slots=1))


async def test_a_failure_comes_back_without_its_frames() -> None:
    """They hold whatever the load had in hand, a matrix first of all."""

    def fail(_: LoadJob) -> Unchanged:
        try:
            raise ZeroDivisionError
        except ZeroDivisionError as error:
            raise LoadError(LoadCode.DEFECT, "no", stage=Stage.BUILD) from error

    _, outcome = await run(fail)

    assert isinstance(outcome, LoadError)
    assert (None, None, None) == (outcome.__traceback__, outcome.__cause__, outcome.__context__)


async def test_an_engine_that_comes_too_late_is_closed() -> None:
    """N17: whoever hung may still bring a whole index; nobody serves it, and nobody keeps it."""
    released, engine = threading.Event(), NumpyEngine(matrix=matrix_of(np.eye(4)))

    def hang(_: LoadJob) -> LoadedIndex:
        released.wait(10)
        return LoadedIndex(
            info=info_of(),
            engine=engine,
            ids=ItemIds(None, 4),
            masks=masks_of({}),
            files=version_files("first"),
        )

    attempt, outcome = await run(hang, timeout=0.05)
    assert isinstance(outcome, LoadError)
    assert (LoadCode.TIMED_OUT, Stage.GATE) == (outcome.code, outcome.stage)
    assert attempt.cancelled()

    released.set()
    async with asyncio.timeout(5):
        while not engine.closed:
            await asyncio.to_thread(lambda: None)


async def test_progress_is_bounded_and_stages_are_not() -> None:
    """A stage is told at once, bytes at most four times a second."""
    notes = Notes()

    def load(job: LoadJob) -> Unchanged:
        for done in range(10_000):
            job.report(Stage.FETCH, done, 10_000)
        job.report(Stage.CHECK, 10_000, 10_000)
        return Unchanged()

    await run(load, notes=notes)

    assert [(Stage.FETCH, 0, 10_000), (Stage.CHECK, 10_000, 10_000)] == [notes.all[0], notes.all[-1]]
    assert len(notes.all) <= 6


async def test_a_load_left_behind_is_not_heard_of_again() -> None:
    """N17: it must not write over the status of the load that came after it."""
    notes, released, ended = Notes(), threading.Event(), threading.Event()

    def hang(job: LoadJob) -> Unchanged:
        released.wait(10)
        job.report(Stage.WARM_UP, 1, 1)
        ended.set()
        return Unchanged()

    await run(hang, notes=notes, timeout=0.05)
    released.set()
    await asyncio.to_thread(ended.wait, 5)
    await asyncio.sleep(0)

    assert [] == notes.all
