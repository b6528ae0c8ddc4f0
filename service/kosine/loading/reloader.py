"""Keeps one index up to date: one task that looks, waits, loads and publishes.

Any event only says "look again": a hint of the watcher, the poll, a forced reload, other settings, the end of
a load. What happens then follows from what is seen (`refresh_policy`). One load runs at a time, and after
each the source is looked at again, so the newest content wins and events in between coalesce. A failed load
changes nothing but the status. The task outlives every exception.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from kosine.errors import LoadCode, LoadError, ShuttingDown, Stage
from kosine.loading.attempt import Attempt, Loaded, let_go
from kosine.loading.canary.live import LiveVersion
from kosine.loading.job import Held, LoadJob, Unchanged
from kosine.loading.mask_load import LoadedMasks
from kosine.loading.pipeline import LoadedIndex
from kosine.loading.refresh_policy import Failed, Kind, Seen, Situation, decide, see
from kosine.loading.reporting import Reporter
from kosine.loading.threads import Overdue
from kosine.serving.status import ReloadOutcome

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from typing import Literal

    from kosine.loading.job import Sources
    from kosine.loading.threads import LoaderThreads
    from kosine.metrics import Metrics
    from kosine.serving.registry import Registry
    from kosine.serving.status import VersionInfo
    from kosine.serving.version import Version
    from kosine.settings import IndexSettings

__all__ = ("Loader", "Reloader", "ReloaderParts")

T = TypeVar("T")

_LOOK_WITHIN = 30.0
_MOST_LEFT_BEHIND = 4
"""Threads of one index that may hang at once; past it the source is not touched until one returns."""


class Loader(Protocol):
    """What blocks: `Pipeline`. Raises LoadError."""

    def look(self, settings: IndexSettings) -> Sources:
        """Fingerprints now."""

    def load(self, job: LoadJob) -> Loaded | Unchanged:
        """Run every step."""

    def recall(self, name: str, settings: IndexSettings) -> Sources | None:
        """What a local copy was made of; raises nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloaderParts:
    """What all reloaders share."""

    registry: Registry
    loader: Loader
    threads: LoaderThreads
    open_version: Callable[[LoadedIndex, IndexSettings], Version]
    metrics: Metrics
    rng: random.Random


class Reloader:
    """The actor of one index. Create and use it on the event loop."""

    def __init__(self, name: str, settings: IndexSettings, *, parts: ReloaderParts) -> None:
        self._name = name
        self._settings = settings
        self._parts = parts
        self._registry = parts.registry
        self._loop = asyncio.get_running_loop()
        self._reporter = Reporter(name, registry=parts.registry, metrics=parts.metrics)
        self._log = structlog.get_logger(__name__).bind(index=name)
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._attempt: Attempt | None = None
        self._asked: list[asyncio.Future[ReloadOutcome | None]] = []
        self._seen: Seen | None = None
        self._failed: Failed | None = None
        self._loaded: str | None = None
        """Fingerprint of the version that serves."""
        self._sources: Sources | None = None
        """All of them."""
        self._published: VersionInfo | None = None
        self._outdated = False
        """Whether the version that serves was loaded with other settings."""
        self._recalled = False
        """Whether the local copy had its chance."""

    def start(self) -> None:
        """Begin with the first look."""
        self._task = self._loop.create_task(self._run(), name=f"reloader-{self._name}")
        self._task.add_done_callback(self._ended)

    def hint(self) -> None:
        """Something happened near the source."""
        self._wake.set()

    def configure(self, settings: IndexSettings, *, reload: bool) -> None:
        """Take other settings; `reload` where a version loaded with the old ones does not satisfy them."""
        self._settings = settings
        if self._failed is not None:
            self._failed = replace(self._failed, token=None)
        if reload:
            self._outdated = True
            self._reporter.outdated()
            self._seen = None
            if self._attempt is not None:
                self._attempt.call_off()
        elif not self._outdated and (current := self._registry.current(self._name)) is not None:
            current.configure(settings)
        self._wake.set()

    async def force(self) -> ReloadOutcome:
        """Read the source again, whatever its fingerprint, and tell how it ended. Raises ShuttingDown.

        Everyone who asks before that load begins shares it; who asks later gets the next one.
        """
        answer: asyncio.Future[ReloadOutcome | None] = self._loop.create_future()
        if not self._closing:
            self._asked.append(answer)
            self._wake.set()
            if (outcome := await answer) is not None:
                return outcome
        raise ShuttingDown("the index is being stopped; ask another replica", retry_after=1)

    async def close(self, *, grace: float = 5.0) -> None:
        """Call off what runs; after `grace` seconds leave it behind."""
        self._closing = True
        self._wake.set()
        if self._attempt is not None:
            self._attempt.call_off()
        if self._task is not None:
            _, pending = await asyncio.wait({self._task}, timeout=grace)
            for task in pending:
                task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._answer(None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.critical("reloader_died", exc_info=error)

    async def _run(self) -> None:
        while not self._closing:
            self._wake.clear()
            try:
                until = await self._turn()
            except Exception:  # noqa: BLE001  whatever it was, the index must go on following its source
                self._log.exception("reloader_defect")
                until = self._failed_look(_defect(Stage.FINGERPRINT), began=self._loop.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._wake.wait()

    async def _turn(self) -> float:
        """One look and what follows from it; returns when to look again."""
        settings, asked, began = self._settings, len(self._asked), self._loop.time()
        try:
            sources = await self._look(settings)
        except LoadError as error:
            await self._recall(settings)
            return self._failed_look(error, began=began, asked=asked)
        if self._settings is not settings or self._closing:
            return began
        self._seen = see(self._seen, sources.combined, began=began, ended=self._loop.time())
        # Who asked during the look may mean a newer file: the next look is theirs.
        action = decide(self._situation(forced=asked > 0))
        self._seen = replace(self._seen, rested=action.kind is not Kind.SETTLE)
        match action.kind:
            case Kind.LOAD:
                await self._load(sources)
                return self._loop.time()
            case Kind.GIVE_UP:
                return self._failed_look(_unsettled(), began=self._seen.since)
            case Kind.UNCHANGED:
                self._reporter.confirmed()
                if self._failed is not None:
                    self._failed = None
                    self._reporter.recovered()
        return action.until

    async def _recall(self, settings: IndexSettings) -> None:
        """Serve the local copy while the store does not answer, once, and only where nothing serves."""
        if self._recalled or self._closing or self._registry.current(self._name) is not None:
            return
        self._recalled = True
        sources = await self._with_copy(partial(self._parts.loader.recall, self._name, settings))
        if sources is not None and self._settings is settings:
            await self._load(sources, stale=True)

    async def _with_copy(self, call: Callable[[], T]) -> T | None:
        """What `call` returns; None where the disk of the copies hangs."""
        try:
            return await self._parts.threads.run(call, name=self._name, within=self._settings.refresh.timeout)
        except Overdue:
            self._log.warning("copy_failed", reason="the disk takes longer than refresh.timeout")
            return None

    def _situation(self, *, forced: bool = False) -> Situation:
        refresh = self._settings.refresh
        serves = self._registry.current(self._name) is not None and not self._outdated
        return Situation(
            now=self._loop.time(),
            interval=refresh.interval * self._parts.rng.uniform(0.9, 1.1),
            settle=refresh.settle,
            loaded=self._loaded if serves else None,
            seen=self._seen,
            failed=self._failed,
            forced=forced,
        )

    async def _look(self, settings: IndexSettings) -> Sources:
        self._reporter.looked()
        threads, within = self._parts.threads, min(_LOOK_WITHIN, settings.refresh.timeout)
        hanging = threads.left_behind(self._name)
        if hanging >= _MOST_LEFT_BEHIND:
            raise _timed_out(f"{hanging} earlier reads of the source still hang")
        try:
            return await threads.run(
                partial(self._parts.loader.look, settings), name=self._name, within=within
            )
        except Overdue:
            raise _timed_out(f"looking at the source took more than {within:g} s") from None

    def _failed_look(self, error: LoadError, *, began: float, asked: int | None = None) -> float:
        """There is nothing to load; returns when to look again."""
        self._seen = None
        self._failure(error, token=None, began=began)
        self._answer(self._outcome("failed"), first=asked)
        return decide(self._situation()).until

    async def _load(self, sources: Sources, *, stale: bool = False) -> None:
        asked, self._asked = self._asked, []
        began = self._loop.time()
        self._attempt = attempt = Attempt(self._reporter.progressed, self._reporter.judged)
        try:
            job = self._job(attempt, sources, proven=stale, reread=bool(asked))
            result = await attempt.run(self._parts.loader.load, job, threads=self._parts.threads)
            if isinstance(result, Loaded):
                result = await self._publish(result, attempt)
        finally:
            self._attempt = None
            self._asked = asked + self._asked
        if isinstance(result, LoadError) and result.code is LoadCode.CANCELLED:
            self._reporter.called_off()
            return
        self._answer(self._conclude(result, sources, began=began, stale=stale), first=len(asked))
        if isinstance(result, Loaded) and result.copy is not None:
            await self._with_copy(result.copy.commit)

    def _job(self, attempt: Attempt, sources: Sources, *, proven: bool, reread: bool) -> LoadJob:
        current = self._registry.current(self._name)
        drops_first = self._settings.policy == "resource_preserving"
        return LoadJob(
            name=self._name,
            settings=self._settings,
            sources=sources,
            served=self._published,
            reuse=current.info.digest if current is not None and not self._outdated else None,
            held=self._held(),
            reread=reread,
            from_copy=current is None and self._failed is None,
            cancelled=attempt.cancelled,
            report=attempt.report,
            make_room=self._make_room if current is not None and drops_first else None,
            live=LiveVersion(current, cancelled=attempt.cancelled)
            if current is not None and not drops_first
            else None,
            judged=attempt.judge,
            proven=proven,
        )

    def _make_room(self) -> None:
        """Called in the loader thread: wait until the version that serves is freed."""
        withdrawn = asyncio.run_coroutine_threadsafe(self._registry.withdraw(self._name), self._loop)
        withdrawn.result()

    def _held(self) -> Held | None:
        """What serves, if it is known of which files it was made."""
        current, published, sources = self._registry.current(self._name), self._published, self._sources
        if current is None or published is None or sources is None or self._outdated:
            return None
        ours = current.info.digest == published.digest
        return Held(sources=sources, masks=current.masks) if ours else None

    async def _publish(self, loaded: Loaded, attempt: Attempt) -> Loaded | LoadError:
        """From here on callers get `loaded`; there is no await between the last check and that."""
        current = self._registry.current(self._name)
        if attempt.cancelled() or (isinstance(loaded, LoadedMasks) and current is None):
            refused = LoadError(LoadCode.CANCELLED, "the load was given up", stage=Stage.PUBLISH)
        else:
            try:
                if isinstance(loaded, LoadedIndex):
                    version = self._parts.open_version(loaded, self._settings)
                    self._registry.publish(self._name, version)
                elif current is not None:
                    current.masks = loaded.masks
            except Exception:  # noqa: BLE001  the engine has to be freed, whatever it was
                self._log.exception("publish_defect")
                refused = _defect(Stage.PUBLISH)
            else:
                return loaded
        await self._parts.threads.run(partial(let_go, loaded), name=self._name, within=_LOOK_WITHIN)
        return refused

    def _conclude(
        self, result: Loaded | Unchanged | LoadError, sources: Sources, *, began: float, stale: bool
    ) -> ReloadOutcome:
        token = sources.combined.token
        if isinstance(result, LoadError):
            self._failure(result, token=token, began=began)
            return self._outcome("failed")
        seconds = self._loop.time() - began
        self._loaded, self._sources, self._failed = token, sources, None
        if not isinstance(result, LoadedIndex):
            if isinstance(result, LoadedMasks):
                self._reporter.masks_published(result.masks, seconds=seconds)
            else:
                self._reporter.unchanged(seconds=seconds)
            if (current := self._registry.current(self._name)) is not None:
                current.info = self._published = replace(current.info, fingerprint=token)
            return self._outcome("masks_published" if isinstance(result, LoadedMasks) else "unchanged")
        self._published, self._outdated = result.info, False
        self._reporter.published(result.info, seconds=seconds, stale=stale)
        return self._outcome("published")

    def _failure(self, error: LoadError, *, token: str | None, began: float) -> None:
        now = self._loop.time()
        told = self._reporter.failed(error, seconds=now - began)
        self._failed = Failed(code=error.code, token=token, at=now, consecutive=told.consecutive)

    def _outcome(
        self, outcome: Literal["published", "masks_published", "unchanged", "failed"]
    ) -> ReloadOutcome:
        current = self._registry.current(self._name)
        return ReloadOutcome(
            outcome=outcome,
            version=current.info.version if current is not None else None,
            error=self._reporter.failure if outcome == "failed" else None,
        )

    def _answer(self, outcome: ReloadOutcome | None, *, first: int | None = None) -> None:
        """Tell the `first` of those who asked, or all."""
        answered, self._asked = self._asked[:first], self._asked[len(self._asked[:first]) :]
        for one in answered:
            if not one.done():
                one.set_result(outcome)


def _timed_out(detail: str) -> LoadError:
    return LoadError(LoadCode.TIMED_OUT, f"{detail}; the old version serves on", stage=Stage.FINGERPRINT)


def _unsettled() -> LoadError:
    return LoadError(
        LoadCode.UNSETTLED,
        "the source keeps changing and never rested long enough to be read; "
        "publish by renaming a complete file into place",
        stage=Stage.FINGERPRINT,
    )


def _defect(stage: Stage) -> LoadError:
    return LoadError(LoadCode.DEFECT, "a defect of kosine; the log has the traceback", stage=stage)
