"""Loading without files and threads, for virtual time; and the whole loading room around a NumPy engine."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from kosine.loading.admission import Admission, Memory
from kosine.loading.catalog import Catalog
from kosine.loading.job import LoadJob, Sources, Unchanged
from kosine.loading.local import LocalStorage
from kosine.loading.pipeline import LoadedIndex, Pipeline
from kosine.loading.reloader import Reloader
from kosine.loading.reloader_parts import ReloaderParts
from kosine.loading.source import Fingerprint
from kosine.loading.threads import LoaderThreads, Overdue
from kosine.loading.version_files import VersionFiles
from kosine.loading.watcher import Watcher
from kosine.metrics import Metrics
from kosine.serving.device_thread import DeviceThread
from kosine.serving.dispatcher import Dispatcher
from kosine.serving.item_ids import ItemIds
from kosine.serving.query import to_query
from kosine.serving.registry import Registry
from kosine.serving.version import Version, open_version
from kosine.settings import BatchSettings, IndexSettings, RefreshSettings, ServiceSettings, Settings
from kosine.source_uri import COMMAND_LINE
from kosine.units import Duration
from tests.kit.engines import NumpyDevice, NumpyEngine, matrix_of
from tests.kit.serving import VirtualDevice, info_of, masks_of, never

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from numpy.typing import ArrayLike

    from kosine.errors import Stage
    from kosine.loading.attempt import Loaded
    from kosine.loading.copies import Copies
    from kosine.loading.reloader_parts import Loader
    from kosine.loading.source import Storage
    from kosine.serving.batch import Answer
    from kosine.serving.status import LoadStatus

__all__ = (
    "InlineThreads",
    "ObservedRegistry",
    "Rig",
    "ScriptedLoader",
    "Staged",
    "index_settings",
    "memory",
    "rig",
    "version_files",
    "virtual_reloader",
)

T = TypeVar("T")


def version_files(token: str) -> VersionFiles:
    """Of a version of one file, of which the store said `token`."""
    return VersionFiles(
        uri="items.npy",
        ids_uri=None,
        vectors=Fingerprint(token=token, size=100),
        ids=None,
        manifest=None,
        named=None,
        sha256={"vectors": "0" * 64},
    )


class ObservedRegistry(Registry):
    """Lets a test wait for what it expects instead of for time to pass."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[tuple[str, LoadStatus]] = []
        self.published: list[str] = []
        """Digests in the order of their publication."""
        self._changed = asyncio.Event()

    def note(self, name: str, status: LoadStatus) -> None:
        super().note(name, status)
        self.notes.append((name, status))
        self._changed.set()

    def publish(self, name: str, version: Version) -> None:
        super().publish(name, version)
        self.published.append(version.info.digest)
        self._changed.set()

    async def until(self, holds: Callable[[], bool], *, within: float = 20.0) -> None:
        """Return as soon as `holds()`; it is asked again whenever loading has told something."""
        async with asyncio.timeout(within):
            while not holds():
                self._changed.clear()
                await self._changed.wait()


class InlineThreads(LoaderThreads):
    """Runs calls on the loop; a load (a call whose late result matters) takes `seconds` of virtual time."""

    def __init__(self, *, slots: int = 2) -> None:
        super().__init__(slots=slots)
        self.seconds = 0.0
        self.late: list[Any] = []
        """Results nobody waited for."""

    async def run(
        self, call: Callable[[], T], *, name: str, within: float, late: Callable[[T], None] | None = None
    ) -> T:
        seconds = self.seconds if late is not None else 0.0
        await asyncio.sleep(min(seconds, within))
        if seconds <= within:
            return call()
        self._left_behind[name] += 1
        raise Overdue


@dataclass(slots=True, eq=False)
class ScriptedLoader:
    """Implements `Loader`: the source is what the test says it is."""

    fingerprint: str = "first"
    content: str | None = None
    """Digest of what is read; the fingerprint itself unless set."""
    look_error: Exception | None = None
    load_error: Exception | None = None
    looks: list[float] = field(default_factory=list)
    loads: list[tuple[float, str]] = field(default_factory=list)
    """(loop time, fingerprint) of every load."""
    jobs: list[LoadJob] = field(default_factory=list)
    engines: list[NumpyEngine] = field(default_factory=list)

    def look(self, settings: IndexSettings) -> Sources:
        """See `Loader.look`."""
        del settings
        self.looks.append(round(asyncio.get_running_loop().time(), 3))
        if self.look_error is not None:
            raise self.look_error
        return Sources(vectors=Fingerprint(token=self.fingerprint, size=100))

    def recall(self, name: str, settings: IndexSettings) -> Sources | None:
        """See `Loader.recall`: nothing was kept."""
        del name, settings
        return None

    def load(self, job: LoadJob) -> LoadedIndex | Unchanged:
        """See `Loader.load`."""
        token = job.sources.combined.token
        self.jobs.append(job)
        self.loads.append((round(asyncio.get_running_loop().time(), 3), token))
        if self.load_error is not None:
            raise self.load_error
        digest = self.content or token
        if digest == job.reuse:
            return Unchanged()
        engine = NumpyEngine(matrix=matrix_of(np.eye(4)))
        self.engines.append(engine)
        info = replace(info_of(job.name, version=digest[:16]), digest=digest, fingerprint=token)
        return LoadedIndex(
            info=info, engine=engine, ids=ItemIds(None, 4), masks=masks_of({}), files=version_files(token)
        )


@contextlib.asynccontextmanager
async def virtual_reloader(
    settings: IndexSettings | None = None,
    *,
    loader: ScriptedLoader | None = None,
    rng: random.Random | None = None,
) -> AsyncIterator[tuple[Reloader, ScriptedLoader, ObservedRegistry, InlineThreads]]:
    """The reloader of an index named `items`, started; poll after 30 s, jittered by `rng`, settle 250 ms."""
    registry, threads, metrics = ObservedRegistry(), InlineThreads(), Metrics()
    loader = loader or ScriptedLoader()
    dispatcher = Dispatcher(VirtualDevice())

    def opened(loaded: LoadedIndex, settings: IndexSettings) -> Version:
        return open_version(
            info=loaded.info,
            settings=settings,
            engine=loaded.engine,
            ids=loaded.ids,
            masks=loaded.masks,
            dispatcher=dispatcher,
            metrics=metrics,
        )

    parts = ReloaderParts(
        registry=registry,
        loader=loader,
        threads=threads,
        open_version=opened,
        metrics=metrics,
        rng=rng or _Steady(),
    )
    registry.declare("items", source="items.npy", required=True)
    reloader = Reloader("items", settings or IndexSettings(uri="items.npy"), parts=parts)
    reloader.start()
    try:
        yield reloader, loader, registry, threads
    finally:
        await reloader.close()
        await dispatcher.close()


class _Steady(random.Random):
    """No jitter."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


@dataclass(slots=True, eq=False)
class Staged:
    """A `Loader` over the real one that calls `at[stage]()` in the loader thread as each stage begins."""

    loader: Loader
    at: dict[Stage, Callable[[], None]] = field(default_factory=dict)

    def look(self, settings: IndexSettings) -> Sources:
        """See `Loader.look`."""
        from kosine.errors import Stage

        self._reach(Stage.FINGERPRINT)
        return self.loader.look(settings)

    def recall(self, name: str, settings: IndexSettings) -> Sources | None:
        """See `Loader.recall`."""
        return self.loader.recall(name, settings)

    def load(self, job: LoadJob) -> Loaded | Unchanged:
        """See `Loader.load`."""

        def report(stage: Stage, done: int, total: int) -> None:
            job.report(stage, done, total)
            self._reach(stage)

        return self.loader.load(replace(job, report=report))

    def _reach(self, stage: Stage) -> None:
        fault = self.at.get(stage)
        if fault is not None:
            fault()


def memory(limit: int = 2**40, used: int = 0) -> Callable[[], Memory]:
    """A machine of that size."""
    return lambda: Memory(limit=limit, used=used)


def index_settings(path: Path | str, **changes: Any) -> IndexSettings:
    """Settings for tests in real time: settle 50 ms, poll every 30 ms, small batches."""
    refresh = RefreshSettings(
        interval=Duration(changes.pop("interval", 0.03)),
        settle=Duration(changes.pop("settle", 0.05)),
        timeout=Duration(changes.pop("timeout", 20.0)),
        watch=changes.pop("watch", False),
    )
    changes.setdefault("batch", BatchSettings(max_rows=8))
    return IndexSettings(uri=str(path), refresh=refresh, **changes)


@dataclass(slots=True, kw_only=True, eq=False)
class Rig:
    """Everything below HTTP and TensorFlow, real."""

    registry: ObservedRegistry
    device: NumpyDevice
    metrics: Metrics
    threads: LoaderThreads
    loader: Staged
    watcher: Watcher
    catalog: Catalog

    async def apply(self, **indexes: IndexSettings) -> None:
        """Make these the configured indexes."""
        await self.catalog.apply(Settings(indexes=indexes))

    async def ask(self, name: str, vector: ArrayLike, *, k: int = 1) -> Answer:
        """What a caller of `name` is answered."""
        loop = asyncio.get_running_loop()
        with self.registry.lease(name) as version:
            query = to_query(np.asarray(vector).tolist(), dim=version.info.dim, metric=version.info.metric)
            return await version.batcher.search(query, k, deadline=loop.time() + 10, abandoned=never)

    def error(self, name: str = "items") -> tuple[str, str] | None:
        """Code and stage of the last failure."""
        failure = self.registry.load_status(name).last_error if name in self.registry.names() else None
        return (failure.code.value, failure.stage.value) if failure is not None else None

    def serves(self, name: str = "items") -> str | None:
        """The version that answers."""
        current = self.registry.current(name) if name in self.registry.names() else None
        return current.info.version if current is not None else None


@contextlib.asynccontextmanager
async def rig(
    *,
    device: NumpyDevice | None = None,
    probe: Callable[[], Memory] | None = None,
    slots: int = 2,
    recheck: float = 0.1,
    settings: ServiceSettings | None = None,
    storage: Storage | None = None,
    copies: Copies | None = None,
) -> AsyncIterator[Rig]:
    """A running loading room without indexes; everything is closed at the end."""
    registry, metrics, threads = ObservedRegistry(), Metrics(), LoaderThreads(slots=slots)
    device = device or NumpyDevice()
    pipeline = Pipeline(
        storage=storage or LocalStorage(COMMAND_LINE),
        factory=device,
        admission=Admission(probe or memory()),
        copies=copies,
    )
    loader = Staged(pipeline)
    dispatcher = Dispatcher(DeviceThread())
    watcher = Watcher(recheck=recheck)
    catalog = Catalog(
        service=settings or ServiceSettings(),
        registry=registry,
        loader=loader,
        threads=threads,
        dispatcher=dispatcher,
        metrics=metrics,
        watcher=watcher,
        rng=random.Random(7),
        copies=copies,
    )
    try:
        yield Rig(
            registry=registry,
            device=device,
            metrics=metrics,
            threads=threads,
            loader=loader,
            watcher=watcher,
            catalog=catalog,
        )
    finally:
        await catalog.close()
        await watcher.close()
        await registry.close(grace=1.0)
        await dispatcher.close()
