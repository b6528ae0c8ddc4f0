"""A load of masks: beside vectors and ids, or alone where nothing else has changed.

Alone it costs a read of the masks that changed: no engine is built, and the version that serves keeps its
name. Vectors and ids stay verified, by the fingerprints they were loaded with.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.admission import MemoryNeed
from kosine.loading.job import Unchanged
from kosine.loading.manifest import check_mask_digest
from kosine.loading.masks import MASK_BUFFER_BYTES, named_masks, read_mask, read_mask_header
from kosine.loading.version_files import mask_role

if TYPE_CHECKING:
    from kosine.loading.admission import Admission
    from kosine.loading.copies import PendingCopy
    from kosine.loading.job import Held, LoadJob
    from kosine.loading.masks import MaskArtifact
    from kosine.loading.opening import MaskFiles, Opener
    from kosine.serving.masks import Masks

__all__ = ("LoadedMasks", "MaskLoad", "mask_bytes", "read_masks", "swapped")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedMasks:
    """Verified masks for the version that serves, which keeps everything else."""

    masks: Masks
    copy: PendingCopy | None = None
    """To be committed once they serve, or discarded."""


def read_masks(files: MaskFiles, job: LoadJob, *, rows: int) -> dict[str, MaskArtifact]:
    """All masks of `files`, one for each of `rows` rows of the file of vectors.

    LoadError as `read_mask`, and `digest_mismatch` where a manifest tells of other content.
    """
    read = {}
    for name, reader in files.masks.items():
        mask = read[name] = read_mask(reader, name=name, rows=rows, cancelled=job.cancelled)
        _check_digest(job, name, mask.digest.hex())
    return read


def _check_digest(job: LoadJob, name: str, found: str) -> None:
    if job.sources.named is not None:
        check_mask_digest(job.sources.named, name, found)


def mask_bytes(job: LoadJob, rows: int, *, masks: int) -> int:
    """What so many of them take while they are loaded; twice where rows may be dropped, and what is kept."""
    return (2 * masks + 1) * rows if job.settings.invalid_rows == "drop" else masks * rows


def swapped(held: Held, masks: Masks) -> LoadedMasks | None:
    """`masks` in the place of those that serve; None where they are the same."""
    return LoadedMasks(masks=masks) if masks.digests != held.masks.digests else None


class MaskLoad:
    """One run through the steps; `stage` is the one it is in."""

    def __init__(self, job: LoadJob, held: Held, opener: Opener, admission: Admission) -> None:
        self.stage = Stage.GATE
        self._job = job
        self._held = held
        self._opener = opener
        self._admission = admission

    def run(self) -> LoadedMasks | Unchanged:
        """Raises LoadError, and then nothing is left open."""
        job, held = self._job, self._held
        before, rows = held.sources.masks, held.masks.rows
        changed = [name for name, seen in job.sources.masks.items() if before.get(name) != seen]
        with contextlib.ExitStack() as unfinished:
            self._enter(Stage.GATE)
            with self._opener.open_masks(job, changed) as files:
                if files.copy is not None:
                    unfinished.callback(files.copy.discard)
                for name, reader in files.masks.items():
                    read_mask_header(reader, name=name, rows=rows.count)
                self._enter(Stage.ADMIT)
                with self._admission.book(self._need(files)):
                    self._enter(Stage.FETCH)
                    read = read_masks(files, job, rows=rows.count)
            found = swapped(held, self._all(named_masks(read, rows, before=held.masks)))
            if found is None:
                return Unchanged()
            if files.copy is not None:
                files.copy.found({mask_role(name): mask.digest.hex() for name, mask in read.items()})
            unfinished.pop_all()
            return replace(found, copy=files.copy)

    def _all(self, read: Masks) -> Masks:
        """What was read, and the masks that did not have to be, in the order of the sources."""
        named = {}
        for name in self._job.sources.masks:
            named[name] = read.named[name] if name in read.named else self._held.masks.named[name]
            _check_digest(self._job, name, named[name].digest)
        return replace(read, named=named)

    def _need(self, files: MaskFiles) -> MemoryNeed:
        rows = self._held.masks.rows.count
        return MemoryNeed(
            matrix=0,
            ids=0,
            masks=mask_bytes(self._job, rows, masks=len(files.masks)),
            buffers=MASK_BUFFER_BYTES + files.buffer_bytes,
            scratch=0,
        )

    def _enter(self, stage: Stage) -> None:
        if self._job.cancelled():
            raise LoadError(LoadCode.CANCELLED, "the load was given up", stage=stage)
        self.stage = stage
        self._job.report(stage, 0, self._job.sources.combined.size)
