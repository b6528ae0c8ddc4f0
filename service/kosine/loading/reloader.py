"""Keeps one index up to date: one task that looks, waits, loads and publishes.

Any event only says "look again": a hint of the watcher, the poll, a forced reload, other settings, the end of
a load. What happens then follows from what is seen (`refresh_policy`). One load runs at a time, and after
each the source is looked at again, so the newest content wins and events in between coalesce. A failed load
changes nothing but the status. Orders for an earlier version go first. The task outlives every exception.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import structlog

from kosine.errors import InternalError, LoadCode, LoadError, RequestError, Stage
from kosine.loading.attempt import Attempt, Loaded, let_go
from kosine.loading.canary.live import LiveVersion
from kosine.loading.failures import defect, unsettled
from kosine.loading.job import Held, LoadJob, Unchanged
from kosine.loading.keeper import Keeper
from kosine.loading.looking import LOOK_WITHIN, look
from kosine.loading.mask_load import LoadedMasks
from kosine.loading.orders import Asked, Order, not_gone_back, pinned_to, stopping
from kosine.loading.pipeline import LoadedIndex
from kosine.loading.refresh_policy import Failed, Kind, Seen, Situation, decide, see
from kosine.loading.reporting import Reporter
from kosine.serving.status import ReloadOutcome

if TYPE_CHECKING:
    from typing import Literal

    from kosine.loading.history import Served
    from kosine.loading.job import Sources
    from kosine.loading.orders import Command
    from kosine.loading.reloader_parts import ReloaderParts
    from kosine.serving.status import Cause, VersionInfo
    from kosine.settings import IndexSettings

__all__ = ("Reloader",)


class Reloader:
    """The actor of one index. Create and use it on the event loop."""

    def __init__(self, name: str, settings: IndexSettings, *, parts: ReloaderParts) -> None:
        self._name = name
        self._settings = settings
        self._parts = parts
        self._registry = parts.registry
        self._loop = asyncio.get_running_loop()
        self._reporter = Reporter(name, registry=parts.registry, metrics=parts.metrics)
        self._keeper = Keeper(name, copies=parts.copies, threads=parts.threads, reporter=self._reporter)
        self._log = structlog.get_logger(__name__).bind(index=name)
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._attempt: Attempt | None = None
        self._asked = Asked()
        self._orders: list[Order] = []
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
        """Read the source again, whatever its fingerprint, and tell how it ended.

        Everyone who asks before that load begins shares it; who asks later gets the next one. Raises
        ShuttingDown, or IndexPinned.
        """
        if self._closing:
            raise stopping()
        answer: asyncio.Future[ReloadOutcome] = self._loop.create_future()
        self._asked.add(answer)
        self._wake.set()
        return await answer

    async def order(self, command: Command, version: str | None = None) -> ReloadOutcome:
        """Go back to a version, hold one, or follow the source again; a load of the source is called off.

        Raises UnknownVersion, VersionGone, ReloadFailed or ShuttingDown, and then nothing has changed.
        """
        order = Order(command, version, self._loop.create_future())
        if self._closing:
            raise stopping()
        self._orders.append(order)
        if self._attempt is not None and not self._attempt.ordered:
            self._attempt.call_off()
        self._wake.set()
        return await order.answer

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
        self._asked.tell(stopping())
        for order in self._orders:
            order.refuse(stopping())
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.critical("reloader_died", exc_info=error)

    async def _run(self) -> None:
        while not self._closing:
            self._wake.clear()
            try:
                until = await self._turn()
            except Exception:  # noqa: BLE001  whatever it was, the index must go on following its source
                self._log.exception("reloader_defect")
                until = self._failed_look(defect(Stage.FINGERPRINT), began=self._loop.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._wake.wait()

    async def _turn(self) -> float:
        """An order, or else a look; returns when it is time for the next."""
        await self._keeper.recall(self._settings)
        if self._orders:
            await self._obey(self._orders.pop(0))
            return self._loop.time()
        if (held := self._keeper.pinned) is not None:
            self._asked.tell(pinned_to(held))
            if self._registry.current(self._name) is None:
                return await self._restore(held)
        return await self._follow()

    async def _follow(self) -> float:
        """One look and what follows from it; returns when to look again."""
        settings, asked, began = self._settings, len(self._asked), self._loop.time()
        try:
            self._reporter.looked()
            sources = await look(self._parts, self._name, settings)
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
                return self._failed_look(unsettled(), began=self._seen.since)
            case Kind.HELD:
                self._reporter.waits()
                self._recovered()
            case Kind.UNCHANGED:
                self._reporter.confirmed()
                self._recovered()
        return action.until

    def _recovered(self) -> None:
        """There is nothing to load."""
        if self._failed is not None:
            self._failed = None
            self._reporter.recovered()

    async def _recall(self, settings: IndexSettings) -> None:
        """Serve the local copy while the store does not answer, once, and only where nothing serves."""
        if self._recalled or self._closing or self._registry.current(self._name) is not None:
            return
        self._recalled = True
        sources = await self._keeper.on_disk(
            partial(self._parts.loader.recall, self._name, settings), settings
        )
        if sources is not None and self._settings is settings:
            await self._load(sources, stale=True)

    async def _obey(self, order: Order) -> None:
        try:
            await self._carry_out(order)
        except RequestError as refusal:
            order.refuse(refusal)
        except BaseException:
            order.refuse(InternalError("a defect of kosine; the log has the traceback"))
            raise

    async def _carry_out(self, order: Order) -> None:
        current, settings = self._registry.current(self._name), self._settings
        outcome: Literal["published", "unchanged"] = "unchanged"
        if order.command == "unpin":
            await self._keeper.let_go(settings)
        else:
            entry = self._keeper.target(order.version, settings, stay=order.command == "pin")
            if current is None or current.info.digest != entry.digest:
                failure = await self._go_back(entry)
                if failure is not None:
                    version = self._outcome("failed").version
                    raise not_gone_back(failure, entry, serving=version)
                outcome = "published"
            await self._keeper.hold(entry, settings)
        order.done(self._outcome(outcome))

    async def _go_back(self, entry: Served) -> LoadError | None:
        """Serve `entry` again; what went wrong, if anything."""
        sources, began = entry.files.sources(), self._loop.time()
        result = await self._attempted(sources, proven=True, earlier=entry)
        if isinstance(result, LoadError):
            self._reporter.not_gone_back(entry.version, result, seconds=self._loop.time() - began)
            return result
        self._conclude(result, sources, began=began, cause="rollback")
        await self._keep(result)
        return None

    async def _restore(self, held: Served) -> float:
        """Serve the pinned version, which nothing else may take the place of; returns when to try again."""
        began = self._loop.time()
        failure = await self._go_back(held)
        if failure is None or failure.code is LoadCode.CANCELLED:
            return self._loop.time()
        return self._failed_look(failure, began=began)

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
            pinned=self._keeper.pinned is not None,
        )

    def _failed_look(self, error: LoadError, *, began: float, asked: int | None = None) -> float:
        """There is nothing to load; returns when to look again."""
        self._seen = None
        self._failure(error, token=None, began=began)
        self._asked.tell(self._outcome("failed"), first=asked)
        return decide(self._situation()).until

    async def _load(self, sources: Sources, *, stale: bool = False) -> None:
        asked, began = len(self._asked), self._loop.time()
        result = await self._attempted(sources, proven=stale, reread=bool(asked))
        if isinstance(result, LoadError) and result.code is LoadCode.CANCELLED:
            self._reporter.called_off()
            return
        cause: Cause = "copy" if stale else "source"
        self._asked.tell(self._conclude(result, sources, began=began, cause=cause), first=asked)
        if not isinstance(result, LoadError):
            await self._keep(result)

    async def _attempted(
        self, sources: Sources, *, proven: bool, reread: bool = False, earlier: Served | None = None
    ) -> Loaded | Unchanged | LoadError:
        """Load and publish."""
        self._attempt = attempt = Attempt(
            self._reporter.progressed, self._reporter.judged, ordered=earlier is not None
        )
        try:
            job = replace(self._job(attempt, sources), proven=proven, reread=reread, earlier=earlier)
            result = await attempt.run(self._parts.loader.load, job, threads=self._parts.threads)
            return await self._publish(result, attempt) if isinstance(result, Loaded) else result
        finally:
            self._attempt = None

    async def _keep(self, result: Loaded | Unchanged) -> None:
        """For the next start, and for whoever wants to go back."""
        if isinstance(result, Loaded) and result.copy is not None:
            await self._keeper.on_disk(result.copy.commit, self._settings)
        await self._keeper.remember(self._settings)

    def _job(self, attempt: Attempt, sources: Sources) -> LoadJob:
        current = self._registry.current(self._name)
        drops_first = self._settings.policy == "resource_preserving"
        return LoadJob(
            name=self._name,
            settings=self._settings,
            sources=sources,
            served=self._published,
            reuse=current.info.digest if current is not None and not self._outdated else None,
            held=self._held(),
            from_copy=current is None and self._failed is None,
            cancelled=attempt.cancelled,
            report=attempt.report,
            make_room=self._make_room if current is not None and drops_first else None,
            live=LiveVersion(current, cancelled=attempt.cancelled)
            if current is not None and not drops_first
            else None,
            judged=attempt.judge,
            pace=None if current is None or drops_first else self._parts.threads.pace(),
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
                refused = defect(Stage.PUBLISH)
            else:
                return loaded
        await self._parts.threads.run(partial(let_go, loaded), name=self._name, within=LOOK_WITHIN)
        return refused

    def _conclude(
        self, result: Loaded | Unchanged | LoadError, sources: Sources, *, began: float, cause: Cause
    ) -> ReloadOutcome:
        token, modified = sources.combined.token, sources.combined.modified
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
                current.info = self._published = replace(current.info, fingerprint=token, modified=modified)
                self._keeper.confirmed(self._settings, sources, current.masks)
            return self._outcome("masks_published" if isinstance(result, LoadedMasks) else "unchanged")
        self._published, self._outdated = result.info, False
        self._keeper.published(result, self._settings, cause=cause)
        self._reporter.published(result.info, seconds=seconds, stale=cause == "copy")
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
