"""The files of one load, opened as one unit: from their store, or from the local copy of the same files.

An earlier version is read from its copy, else from where its files were, if they are still there as they
were: what a manifest names is never written to again. Either way its content is proven by its digest.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.copies import keeps_copies
from kosine.loading.local import LocalStorage
from kosine.loading.version_files import mask_role
from kosine.source_uri import COMMAND_LINE, local_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from kosine.loading.copies import Copies, PendingCopy, StoredCopy
    from kosine.loading.history import Served
    from kosine.loading.job import LoadJob
    from kosine.loading.manifest import Manifests
    from kosine.loading.source import Fingerprint, Reader, Storage
    from kosine.loading.version_files import VersionFiles

__all__ = ("Files", "MaskFiles", "Opener")

_CONTENT_SAFE = frozenset({LoadCode.CANCELLED, LoadCode.CHANGED_WHILE_READING})
"""Failures that say nothing about what is in the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFiles:
    """Open files of masks, and the copy that is made of them."""

    masks: Mapping[str, Reader] = field(default_factory=dict)
    copy: PendingCopy | None = None

    @property
    def readers(self) -> list[Reader]:
        """All that is open."""
        return [*self.masks.values()]

    @property
    def buffer_bytes(self) -> int:
        """Most memory that reading all takes beside what it fills."""
        return sum(reader.buffer_bytes for reader in self.readers)

    def verify(self) -> None:
        """LoadError `changed_while_reading` unless all are still what they were when they were opened."""
        for reader in self.readers:
            reader.verify()


@dataclass(frozen=True, slots=True, kw_only=True)
class Files(MaskFiles):
    """Open files of a whole version."""

    vectors: Reader
    ids: Reader | None

    @property
    def readers(self) -> list[Reader]:
        """See `MaskFiles.readers`."""
        return [self.vectors, *([self.ids] if self.ids is not None else []), *self.masks.values()]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Places:
    """Where the files of a load are."""

    vectors: str
    ids: str | None
    masks: Mapping[str, str]


class Opener:
    """Thread-safe: every load opens its own files."""

    def __init__(self, storage: Storage, manifests: Manifests, copies: Copies | None) -> None:
        self.storage = storage
        self._manifests = manifests
        self._copies = copies

    @contextlib.contextmanager
    def open(self, job: LoadJob) -> Iterator[Files]:
        """The files of `job.sources`; left only when none has changed meanwhile."""
        with contextlib.ExitStack() as stack:
            files = self._copied(job, stack) or self._fetched(job, stack)
            with _verified(files):
                yield files

    @contextlib.contextmanager
    def open_masks(self, job: LoadJob, names: Iterable[str]) -> Iterator[MaskFiles]:
        """Of these masks of `job.sources` alone; see `open`."""
        with contextlib.ExitStack() as stack:
            storage = self.storage.using(job.settings.credentials)
            places, copy = self._locate(job, storage), self._copy(job)
            files = MaskFiles(masks=_masks(job, places, storage, names, stack, copy), copy=copy)
            with _verified(files):
                yield files

    def _copied(self, job: LoadJob, stack: contextlib.ExitStack) -> Files | None:
        stored = self._stored(job)
        if stored is None:
            return None
        try:
            return Files(
                vectors=_opened(stored.vectors, stack),
                ids=_opened(stored.ids, stack) if stored.ids is not None else None,
                masks={name: _opened(path, stack) for name, path in stored.masks.items()},
            )
        except LoadError:  # gone since it was found whole
            return None

    def _stored(self, job: LoadJob) -> StoredCopy | None:
        if self._copies is None:
            return None
        if job.earlier is not None:
            return self._copies.earlier(job.name, job.earlier.files)
        if not job.from_copy or local_path(job.settings.uri) is not None:
            return None
        return self._copies.stored(job.name, job.sources)

    def _fetched(self, job: LoadJob, stack: contextlib.ExitStack) -> Files:
        sources, storage = job.sources, self.storage.using(job.settings.credentials)
        places, copy = self._locate(job, storage), self._copy(job)
        vectors: Reader = stack.enter_context(storage.open(places.vectors, sources.vectors))
        ids: Reader | None = None
        if places.ids is not None and sources.ids is not None:
            ids = stack.enter_context(storage.open(places.ids, sources.ids))
        if copy is not None:
            vectors = copy.keeping(vectors, "vectors")
            ids = copy.keeping(ids, "ids") if ids is not None else None
        masks = _masks(job, places, storage, sources.masks, stack, copy)
        return Files(vectors=vectors, ids=ids, masks=masks, copy=copy)

    def _copy(self, job: LoadJob) -> PendingCopy | None:
        if self._copies is None or not keeps_copies(job.settings):
            return None
        return self._copies.begin(job.name, job.settings, job.sources, earlier=job.earlier is not None)

    def _locate(self, job: LoadJob, storage: Storage) -> _Places:
        settings, sources = job.settings, job.sources
        if job.earlier is not None:
            _require_there(job.earlier, storage)
            return _places(job.earlier.files)
        if sources.manifest is None:
            return _Places(vectors=settings.uri, ids=settings.ids, masks=settings.masks)
        named = self._manifests.read(storage, settings.uri, sources.manifest, seen=sources.named)
        return _Places(
            vectors=named.vectors.uri,
            ids=named.ids.uri if named.ids is not None else None,
            masks={name: part.uri for name, part in named.masks.items()},
        )


def _places(files: VersionFiles) -> _Places:
    places = files.places()
    masks = {name: places[mask_role(name)] for name in files.masks}
    return _Places(vectors=places["vectors"], ids=places.get("ids"), masks=masks)


def _require_there(earlier: Served, storage: Storage) -> None:
    """LoadError `version_gone` unless its files are where they were, as they were."""
    places = earlier.files.places()
    for role, then in earlier.files.seen().items():
        try:
            now: Fingerprint | None = storage.fingerprint(places[role])
        except LoadError as error:
            if error.code is not LoadCode.SOURCE_MISSING:
                raise
            now = None
        if now is None or now.token != then.token:
            raise LoadError(
                LoadCode.VERSION_GONE,
                f"version {earlier.version}: {places[role]} {'is gone' if now is None else 'was replaced'}, "
                "and there is no whole local copy; service.cache_dir with history of 1 or more keeps copies, "
                "and files that a manifest names stay where they are",
                stage=Stage.GATE,
                asked=earlier.version,
            )


@contextlib.contextmanager
def _verified(files: MaskFiles) -> Iterator[None]:
    try:
        yield
    except LoadError as error:
        # Whatever is wrong with a file that somebody is writing to is not worth telling.
        if error.code not in _CONTENT_SAFE:
            files.verify()
        raise
    files.verify()


def _masks(
    job: LoadJob,
    places: _Places,
    storage: Storage,
    names: Iterable[str],
    stack: contextlib.ExitStack,
    copy: PendingCopy | None,
) -> dict[str, Reader]:
    found = {}
    for name in names:
        reader: Reader = stack.enter_context(storage.open(places.masks[name], job.sources.masks[name]))
        found[name] = copy.keeping(reader, mask_role(name)) if copy is not None else reader
    return found


def _opened(path: Path, stack: contextlib.ExitStack) -> Reader:
    local = LocalStorage(COMMAND_LINE)
    return stack.enter_context(local.open(str(path), local.fingerprint(str(path))))
