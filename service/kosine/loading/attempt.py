"""One load as the event loop sees it: a thread under a time limit, where it is, and how to call it off."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.mask_load import LoadedMasks
from kosine.loading.pipeline import LoadedIndex
from kosine.loading.threads import Overdue

if TYPE_CHECKING:
    from collections.abc import Callable

    from kosine.loading.job import LoadJob, Unchanged
    from kosine.loading.threads import LoaderThreads
    from kosine.serving.status import CanaryReport

__all__ = ("Attempt", "Loaded", "let_go")

_REPORT_EVERY = 0.25

Loaded = LoadedIndex | LoadedMasks
"""What is to be published, or let go of."""


class Attempt:
    """Made on the loop; `cancelled`, `report` and `judge` belong into a LoadJob and are called in its thread.

    `note` is called on the loop with the stage, bytes read and bytes in all: at once for a new stage, else at
    most four times a second, and never after the attempt has ended. So is `judged`, with what a canary found.
    """

    def __init__(
        self,
        note: Callable[[Stage, int, int], None],
        judged: Callable[[CanaryReport], None] = lambda _: None,
        *,
        ordered: bool = False,
    ) -> None:
        self.stage = Stage.GATE
        self.ordered = ordered
        """Whether somebody asked for that very version."""
        self._note = note
        self._judged = judged
        self._loop = asyncio.get_running_loop()
        self._called_off = threading.Event()
        self._ended = False
        self._reported = float("-inf")

    def cancelled(self) -> bool:
        """Whether nobody wants the result any more."""
        return self._called_off.is_set()

    def call_off(self) -> None:
        """Nobody wants the result; the load stops at its next chunk or stage."""
        self._called_off.set()

    async def run(
        self,
        load: Callable[[LoadJob], Loaded | Unchanged],
        job: LoadJob,
        *,
        threads: LoaderThreads,
    ) -> Loaded | Unchanged | LoadError:
        """Wait for a slot and run `load(job)`; after the job's `refresh.timeout` its thread is left behind.

        A failure is returned, without the frames it was raised in: they hold the matrix.
        """
        call, within = partial(_outcome, load, job), job.settings.refresh.timeout
        try:
            async with threads.slot():
                return await threads.run(call, name=job.name, within=within, late=let_go)
        except Overdue:
            self.call_off()
            return LoadError(
                LoadCode.TIMED_OUT,
                f"the load took more than refresh.timeout, {within:g} s, and was given up",
                stage=self.stage,
                timeout_seconds=float(within),
            )
        finally:
            self._ended = True

    def report(self, stage: Stage, done: int, total: int) -> None:
        """The load is at `stage` and has read `done` of `total` bytes."""
        now = time.monotonic()
        if stage is self.stage and now - self._reported < _REPORT_EVERY:
            return
        self.stage, self._reported = stage, now
        with contextlib.suppress(RuntimeError):  # the loop was closed while this thread was busy
            self._loop.call_soon_threadsafe(self._show, stage, done, total)

    def judge(self, report: CanaryReport) -> None:
        """The canary has found this."""
        with contextlib.suppress(RuntimeError):  # as above
            self._loop.call_soon_threadsafe(self._show_canary, report)

    def _show(self, stage: Stage, done: int, total: int) -> None:
        if not self._ended:
            self._note(stage, done, total)

    def _show_canary(self, report: CanaryReport) -> None:
        if not self._ended:
            self._judged(report)


def let_go(outcome: Loaded | Unchanged | LoadError) -> None:
    """Free what a load brought that nobody will serve. Blocks."""
    if isinstance(outcome, LoadedIndex):
        outcome.engine.close()
    if isinstance(outcome, Loaded) and outcome.copy is not None:
        outcome.copy.discard()
    if isinstance(outcome, LoadError):
        # TensorFlow's errors may be part of reference cycles that hold the matrix until they are collected.
        gc.collect()


def _outcome(load: Callable[[LoadJob], Loaded | Unchanged], job: LoadJob) -> Loaded | Unchanged | LoadError:
    try:
        return load(job)
    except LoadError as error:
        failure = error
    failure.__traceback__ = failure.__cause__ = failure.__context__ = None
    if failure.stage in (Stage.BUILD, Stage.WARM_UP, Stage.CANARY):
        let_go(failure)
    return failure
