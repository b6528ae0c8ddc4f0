"""The steps of one load: gate, guards, admission, fetch and check, build, warm-up, self-check.

Plain blocking code for a loader thread. What comes out is whole: verified against its fingerprints before and
after, vectors, ids and masks as one unit. Where only masks have changed, nothing else is read. Whatever
fails on the way raises one LoadError with stage and code, and everything that was opened, booked or built
until then has been let go of.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import structlog

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.admission import MemoryNeed
from kosine.loading.artifact import LOAD_BUFFER_BYTES, read_matrix
from kosine.loading.body import CHUNK_BYTES, read_chunks
from kosine.loading.canary.trial import Trial
from kosine.loading.guards import check_guards
from kosine.loading.history import check_earlier
from kosine.loading.ids import read_ids, read_ids_header
from kosine.loading.job import Sources, Unchanged
from kosine.loading.layout import plan_matrix
from kosine.loading.manifest import Manifests, check_digests, check_shape
from kosine.loading.mask_load import LoadedMasks, MaskLoad, mask_bytes, read_masks, swapped
from kosine.loading.masks import named_masks, read_mask_header
from kosine.loading.opening import Opener
from kosine.loading.self_check import check_engine, sample_rows
from kosine.loading.version_files import files_of, sha256_of
from kosine.npy.header import read_header
from kosine.serving.item_ids import LOOKUP_BYTES, ItemIds
from kosine.serving.masks import FileRows
from kosine.serving.status import VersionInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from kosine.engines.engine import Engine, EngineFactory
    from kosine.engines.matrix import Order
    from kosine.loading.admission import Admission, Booking
    from kosine.loading.artifact import MatrixArtifact
    from kosine.loading.copies import Copies, PendingCopy
    from kosine.loading.ids import IdsArtifact
    from kosine.loading.job import LoadJob
    from kosine.loading.layout import MatrixPlan
    from kosine.loading.masks import MaskArtifact
    from kosine.loading.opening import Files
    from kosine.loading.source import Reader, Storage
    from kosine.loading.version_files import VersionFiles
    from kosine.serving.masks import Masks
    from kosine.settings import IndexSettings

__all__ = ("LoadedIndex", "Pipeline", "Unchanged")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedIndex:
    """A verified, warmed-up engine that nobody serves yet; whoever holds it closes it."""

    info: VersionInfo
    engine: Engine
    ids: ItemIds
    masks: Masks
    files: VersionFiles
    copy: PendingCopy | None = None
    """To be committed once it serves, or discarded."""


class Pipeline:
    """Looks at sources and loads them. Thread-safe: every load has its own state."""

    def __init__(
        self,
        *,
        storage: Storage,
        factory: EngineFactory,
        admission: Admission,
        copies: Copies | None = None,
    ) -> None:
        self._storage = storage
        self._factory = factory
        self._admission = admission
        self._manifests = Manifests()
        self._copies = copies
        self._opener = Opener(storage, self._manifests, copies)

    def recall(self, name: str, settings: IndexSettings) -> Sources | None:
        """What the local copy of `name` was made of; None where there is none that can be used. Blocks."""
        return self._copies.recall(name, settings) if self._copies is not None else None

    def look(self, settings: IndexSettings) -> Sources:
        """Fingerprints now. Raises LoadError at FINGERPRINT."""
        storage = self._storage.using(settings.credentials)
        if settings.has_manifest:
            return self._look_through(storage, settings.uri)
        return Sources(
            vectors=storage.fingerprint(settings.uri),
            ids=storage.fingerprint(settings.ids) if settings.ids is not None else None,
            masks={name: storage.fingerprint(uri) for name, uri in settings.masks.items()},
        )

    def _look_through(self, storage: Storage, uri: str) -> Sources:
        manifest = storage.fingerprint(uri)
        try:
            named = self._manifests.glance(storage, uri, manifest)
        except LoadError as error:
            if error.code is not LoadCode.BAD_MANIFEST:
                raise
            return Sources(vectors=manifest, manifest=manifest)
        try:
            return Sources(
                vectors=storage.fingerprint(named.vectors.uri),
                ids=storage.fingerprint(named.ids.uri) if named.ids is not None else None,
                masks={name: storage.fingerprint(part.uri) for name, part in named.masks.items()},
                manifest=manifest,
                named=named,
            )
        except LoadError as error:
            # Its files may be gone because another manifest has taken its place.
            if error.code is LoadCode.SOURCE_MISSING and storage.fingerprint(uri) != manifest:
                return self._look_through(storage, uri)
            raise

    def load(self, job: LoadJob) -> LoadedIndex | LoadedMasks | Unchanged:
        """Run every step. Raises LoadError, and nothing else."""
        load: _Load | MaskLoad
        if job.held is not None and not job.reread and job.sources.differs_in_masks_only(job.held.sources):
            load = MaskLoad(job, job.held, self._opener, self._admission)
        else:
            load = _Load(job, self._opener, self._factory, self._admission)
        try:
            return load.run()
        except LoadError:
            raise
        except MemoryError:
            raise LoadError(
                LoadCode.WONT_FIT,
                "the system refused the memory that was admitted; lower service.memory_limit or give it more",
                stage=load.stage,
            ) from None
        except Exception:  # noqa: BLE001  a defect is a failed load like any other
            structlog.get_logger(__name__).exception("load_defect", index=job.name, stage=load.stage.value)
            raise LoadError(
                LoadCode.DEFECT, "a defect of kosine; the log has the traceback", stage=load.stage
            ) from None


class _Load:
    """One run through the steps; `stage` is the one it is in."""

    def __init__(
        self,
        job: LoadJob,
        opener: Opener,
        factory: EngineFactory,
        admission: Admission,
    ) -> None:
        self.stage = Stage.GATE
        self._job = job
        self._trial = Trial(job, opener.storage)
        self._opener = opener
        self._factory = factory
        self._admission = admission
        self._began = time.monotonic()
        self._total = job.sources.combined.size

    def run(self) -> LoadedIndex | LoadedMasks | Unchanged:
        job = self._job
        with contextlib.ExitStack() as booked, contextlib.ExitStack() as unfinished:
            self._enter(Stage.GATE)
            with self._opener.open(job) as files:
                if files.copy is not None:
                    unfinished.callback(files.copy.discard)
                plan = self._gate(files)
                order, booking = self._book(plan, files.buffer_bytes, booked)
                read = read_masks(files, job, rows=plan.rows)
                if job.make_room is not None:
                    if job.reuse is not None and self._hash_all(files, plan) == job.reuse:
                        return self._only_masks(read)
                    job.make_room()
                artifact, ids, digest = self._fetch(files, plan, order, booking)
            if digest == job.reuse:
                return self._only_masks(read)
            found = files_of(
                job.settings,
                job.sources,
                sha256_of(artifact.digest, ids.digest if ids is not None else None, read),
            )
            loaded = self._build(plan, artifact, ids, found, digest, read)
            if files.copy is not None:
                files.copy.found(found.sha256)
            unfinished.pop_all()
            return replace(loaded, copy=files.copy)

    def _only_masks(self, read: Mapping[str, MaskArtifact]) -> LoadedMasks | Unchanged:
        """Vectors and ids are those that serve."""
        held = self._job.held
        if held is None:
            return Unchanged()
        return swapped(held, named_masks(read, held.masks.rows, before=held.masks)) or Unchanged()

    def _gate(self, files: Files) -> MatrixPlan:
        settings = self._job.settings
        plan = plan_matrix(read_header(files.vectors), layout=settings.layout, dim=settings.dim)
        if (named := self._job.sources.named) is not None:
            check_shape(named, rows=plan.rows, dim=plan.dim)
        texts = files.ids is not None and read_ids_header(files.ids, rows=plan.rows).dtype.kind == "U"
        for name, mask in files.masks.items():
            read_mask_header(mask, name=name, rows=plan.rows)
        self._check_guards(plan.rows, plan.dim, Stage.GATE)
        self._trial.gate(rows=plan.rows, dim=plan.dim, texts=texts)
        return plan

    def _check_guards(self, rows: int, dim: int, stage: Stage) -> None:
        job = self._job
        if not job.proven:
            check_guards(rows=rows, dim=dim, served=job.served, guard=job.settings.guard, stage=stage)

    def _enter(self, stage: Stage, done: int = 0) -> None:
        self._check_cancelled(stage)
        self.stage = stage
        self._job.report(stage, done, self._total)

    def _check_cancelled(self, stage: Stage) -> None:
        if self._job.cancelled():
            raise LoadError(LoadCode.CANCELLED, "the load was given up", stage=stage)

    def _book(
        self, plan: MatrixPlan, read_buffers: int, until: contextlib.ExitStack
    ) -> tuple[Order, Booking]:
        """Memory for the order that is searched fastest, or else for the one that takes least."""
        self._enter(Stage.ADMIT)
        served = self._job.served
        freed = 0
        if served is not None and self._job.make_room is not None and "CPU" in served.device:
            freed = served.bytes
        fastest = self._factory.order(self._job.settings.metric, rows=plan.rows, dim=plan.dim)
        need = self._need(plan, fastest, read_buffers)
        try:
            return fastest, until.enter_context(self._admission.book(need, freed_first=freed))
        except LoadError:
            if fastest == "dim_major":
                raise
        least = self._need(plan, "dim_major", read_buffers)
        booking = until.enter_context(self._admission.book(least, freed_first=freed))
        structlog.get_logger(__name__).warning(
            "screening_left_out", index=self._job.name, need_bytes=need.total, booked_bytes=least.total
        )
        return "dim_major", booking

    def _need(self, plan: MatrixPlan, order: Order, read_buffers: int) -> MemoryNeed:
        settings = self._job.settings
        return MemoryNeed(
            matrix=plan.nbytes,
            ids=_ids_bytes(self._job.sources, plan.rows),
            masks=mask_bytes(self._job, plan.rows, masks=len(self._job.sources.masks)),
            buffers=LOAD_BUFFER_BYTES + read_buffers,
            scratch=self._factory.scratch_bytes(
                order, rows=plan.rows, dim=plan.dim, max_rows=settings.batch.max_rows, max_k=settings.max_k
            ),
        )

    def _hash_all(self, files: Files, plan: MatrixPlan) -> str:
        """The digest, at the price of reading all twice: a touched file must cause no gap in service."""
        ids = self._hash(files.ids) if files.ids is not None else b""
        return self._digest(plan, self._hash(files.vectors), ids)

    def _hash(self, reader: Reader) -> bytes:
        digest = hashlib.sha256()
        sizes = (min(CHUNK_BYTES, reader.size - offset) for offset in range(0, reader.size, CHUNK_BYTES))
        chunks = read_chunks(
            reader, 0, sizes, sink=digest.update, cancelled=self._job.cancelled, progress=lambda _: None
        )
        for _ in chunks:
            pass
        return digest.digest()

    def _fetch(
        self, files: Files, plan: MatrixPlan, order: Order, booking: Booking
    ) -> tuple[MatrixArtifact, IdsArtifact | None, str]:
        def progress(done: int) -> None:
            booking.allocated(plan.nbytes * done // max(1, files.vectors.size))
            self.stage = Stage.FETCH if done < files.vectors.size else Stage.CHECK
            self._job.report(self.stage, done, self._total)

        self._enter(Stage.FETCH)
        settings = self._job.settings
        ids = None
        if files.ids is not None:
            ids = read_ids(files.ids, rows=plan.rows, cancelled=self._job.cancelled)
        artifact = read_matrix(
            files.vectors,
            plan,
            metric=settings.metric,
            order=order,
            check_layout=settings.check_layout,
            drop_invalid=settings.invalid_rows == "drop",
            cancelled=self._job.cancelled,
            progress=progress,
            pace=self._job.pace,
        )
        return artifact, ids, self._digest(plan, artifact.digest, ids.digest if ids is not None else b"")

    def _digest(self, plan: MatrixPlan, vectors: bytes, ids: bytes) -> str:
        if (named := self._job.sources.named) is not None:
            check_digests(named, vectors=vectors, ids=ids)
        found = _digest(self._job.settings, plan.dim, vectors, ids)
        if self._job.earlier is not None:
            check_earlier(self._job.earlier, found)
        return found

    def _build(
        self,
        plan: MatrixPlan,
        artifact: MatrixArtifact,
        ids: IdsArtifact | None,
        files: VersionFiles,
        digest: str,
        read: Mapping[str, MaskArtifact],
    ) -> LoadedIndex:
        settings = self._job.settings
        values = self._left(artifact, ids)
        self._enter(Stage.BUILD, self._total)
        items = ItemIds(values, artifact.matrix.rows)
        masks = named_masks(read, _file_rows(plan, artifact))
        samples = sample_rows(artifact.matrix)
        engine = self._factory.build(
            artifact.matrix, metric=settings.metric, max_k=settings.max_k, max_rows=settings.batch.max_rows
        )
        try:
            self._enter(Stage.WARM_UP, self._total)
            engine.warm_up(warm_up_sizes(settings.batch.max_rows), self._warmed)
            check_engine(engine, samples, metric=settings.metric, pace=self._job.pace)
            self._enter(Stage.CANARY, self._total)
            self._trial.run(engine, items, version=digest[:16])
            self._check_cancelled(Stage.CANARY)
            info = self._describe(plan, artifact, engine, digest)
        except BaseException:
            engine.close()
            raise
        return LoadedIndex(info=info, engine=engine, ids=items, masks=masks, files=files)

    def _left(self, artifact: MatrixArtifact, ids: IdsArtifact | None) -> NDArray[np.generic] | None:
        """Ids of what is left of the file, which must satisfy the guards, too."""
        values = ids.values if ids is not None else None
        if (dropped := artifact.dropped) is None:
            return values
        structlog.get_logger(__name__).warning("rows_dropped", index=self._job.name, **asdict(dropped.told))
        self._check_guards(artifact.matrix.rows, artifact.matrix.dim, Stage.CHECK)
        return dropped.ids_of(values)

    def _warmed(self, _step: str) -> None:
        self._check_cancelled(Stage.WARM_UP)

    def _describe(
        self, plan: MatrixPlan, artifact: MatrixArtifact, engine: Engine, digest: str
    ) -> VersionInfo:
        settings, sources = self._job.settings, self._job.sources.combined
        return VersionInfo(
            name=self._job.name,
            version=digest[:16],
            digest=digest,
            fingerprint=sources.token,
            modified=sources.modified,
            source=settings.uri,
            rows=artifact.matrix.rows,
            dim=plan.dim,
            dtype=artifact.dtype,
            metric=settings.metric,
            bytes=engine.nbytes,
            device=engine.device,
            single_query=engine.single_query,
            norm_min=artifact.norm_min,
            norm_max=artifact.norm_max,
            loaded_at=datetime.now(UTC),
            load_seconds=time.monotonic() - self._began,
            dropped=artifact.dropped.told if artifact.dropped is not None else None,
        )


def warm_up_sizes(max_rows: int) -> tuple[int, ...]:
    """Batch sizes whose first call is paid for before anybody asks.

    >>> warm_up_sizes(128), warm_up_sizes(4)
    ((1, 8, 64, 128), (1, 4))
    """
    return tuple(sorted({size for size in (1, 8, 64) if size < max_rows} | {max_rows}))


def _file_rows(plan: MatrixPlan, artifact: MatrixArtifact) -> FileRows:
    if artifact.dropped is None:
        return FileRows(count=plan.rows)
    kept = np.zeros(plan.rows, np.bool_)
    kept[artifact.dropped.kept] = True
    return FileRows(count=plan.rows, kept=kept)


def _ids_bytes(sources: Sources, rows: int) -> int:
    """As read, in native order, and with the keys that prove them unique, then find them."""
    return 2 * sources.ids.size + LOOKUP_BYTES * rows if sources.ids is not None else 0


def _digest(settings: IndexSettings, dim: int, vectors: bytes, ids: bytes) -> str:
    """Identity of what is served: the same on every replica that decodes the same bytes the same way."""
    decoding = json.dumps([settings.layout, dim, settings.metric]).encode()
    return hashlib.sha256(decoding + vectors + ids).hexdigest()
