"""The files of one load, opened as one unit: from their store, or from the local copy of the same files."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kosine.errors import LoadCode, LoadError
from kosine.loading.local import LocalStorage
from kosine.source_uri import COMMAND_LINE, local_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kosine.loading.copies import Copies, PendingCopy
    from kosine.loading.job import LoadJob
    from kosine.loading.manifest import Manifests
    from kosine.loading.source import Reader, Storage

__all__ = ("Files", "Opener")

_CONTENT_SAFE = frozenset({LoadCode.CANCELLED, LoadCode.CHANGED_WHILE_READING})
"""Failures that say nothing about what is in the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Open files, and the copy that is made of them."""

    vectors: Reader
    ids: Reader | None
    copy: PendingCopy | None = None

    @property
    def buffer_bytes(self) -> int:
        """Most memory that reading both takes beside what it fills."""
        return self.vectors.buffer_bytes + (self.ids.buffer_bytes if self.ids is not None else 0)

    def verify(self) -> None:
        """LoadError `changed_while_reading` unless both are still what they were when they were opened."""
        self.vectors.verify()
        if self.ids is not None:
            self.ids.verify()


class Opener:
    """Thread-safe: every load opens its own files."""

    def __init__(self, storage: Storage, manifests: Manifests, copies: Copies | None) -> None:
        self.storage = storage
        self._manifests = manifests
        self._copies = copies

    @contextlib.contextmanager
    def open(self, job: LoadJob) -> Iterator[Files]:
        """The files of `job.sources`; left only when neither has changed meanwhile."""
        with contextlib.ExitStack() as stack:
            files = self._stored(job, stack) or self._fetched(job, stack)
            try:
                yield files
            except LoadError as error:
                # Whatever is wrong with a file that somebody is writing to is not worth telling.
                if error.code not in _CONTENT_SAFE:
                    files.verify()
                raise
            files.verify()

    def _stored(self, job: LoadJob, stack: contextlib.ExitStack) -> Files | None:
        if self._copies is None or not job.from_copy:
            return None
        stored = self._copies.stored(job.name, job.sources)
        if stored is None:
            return None
        try:
            return Files(
                vectors=_opened(stored.vectors, stack),
                ids=_opened(stored.ids, stack) if stored.ids is not None else None,
            )
        except LoadError:  # gone since it was found whole
            return None

    def _fetched(self, job: LoadJob, stack: contextlib.ExitStack) -> Files:
        sources, storage = job.sources, self.storage.using(job.settings.credentials)
        vectors_uri, ids_uri = self._locate(job, storage)
        vectors: Reader = stack.enter_context(storage.open(vectors_uri, sources.vectors))
        ids: Reader | None = None
        if ids_uri is not None and sources.ids is not None:
            ids = stack.enter_context(storage.open(ids_uri, sources.ids))
        if self._copies is None or local_path(job.settings.uri) is not None:
            return Files(vectors=vectors, ids=ids)
        copy = self._copies.begin(job.name, job.settings, sources)
        vectors = copy.keeping(vectors, "vectors")
        return Files(vectors=vectors, ids=copy.keeping(ids, "ids") if ids is not None else None, copy=copy)

    def _locate(self, job: LoadJob, storage: Storage) -> tuple[str, str | None]:
        """Where vectors and ids are."""
        settings, sources = job.settings, job.sources
        if sources.manifest is None:
            return settings.uri, settings.ids
        named = self._manifests.read(storage, settings.uri, sources.manifest, seen=sources.named)
        return named.vectors.uri, named.ids.uri if named.ids is not None else None


def _opened(path: Path, stack: contextlib.ExitStack) -> Reader:
    local = LocalStorage(COMMAND_LINE)
    return stack.enter_context(local.open(str(path), local.fingerprint(str(path))))
