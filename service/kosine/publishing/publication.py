"""One publication: check the files as a load would, write what is not there yet, and the manifest last.

Objects are called by what is in them, so the same content is never written twice, a publication that was
broken off is taken up where it ended, and a rollback writes a manifest and nothing else. Until the manifest
is in place nothing that is served changes; from then on it names files that are all there.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from kosine.errors import LoadCode, LoadError, Stage, StartupError
from kosine.loading.body import CHUNK_BYTES, read_chunks
from kosine.loading.inspection import Inspection, inspect_source
from kosine.loading.local import LocalStorage
from kosine.loading.manifest import Manifest, Part, encode_manifest, parse_manifest
from kosine.publishing.retention import prune
from kosine.source_uri import COMMAND_LINE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kosine.loading.source import Fingerprint
    from kosine.publishing.target import Target
    from kosine.settings import InvalidRows, Layout, Metric

__all__ = ("Progress", "Publication", "Step", "prepare", "publish")

Progress: TypeAlias = Callable[[str, int, int], None]
"""Gets what is being done, bytes done and bytes to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A file of the publisher, and the object that it becomes."""

    path: str
    fingerprint: Fingerprint
    sha256: str
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What is to be published, checked and hashed."""

    name: str
    vectors: Original
    ids: Original | None
    masks: Mapping[str, Original]
    rows: int
    dim: int
    layout: str

    @property
    def originals(self) -> tuple[Original, ...]:
        """Vectors, ids and masks, as far as there are any; of files with the same content one."""
        masks = {mask.file: mask for mask in self.masks.values()}
        return (self.vectors, *([self.ids] if self.ids is not None else []), *masks.values())

    def manifest(self) -> bytes:
        """The manifest that names it."""
        ids = self.ids
        return encode_manifest(
            Manifest(
                vectors=Part(self.vectors.file, self.vectors.sha256),
                ids=Part(ids.file, ids.sha256) if ids is not None else None,
                masks={name: Part(mask.file, mask.sha256) for name, mask in self.masks.items()},
                rows=self.rows,
                dim=self.dim,
            )
        )


@dataclass(frozen=True, slots=True)
class Step:
    """Something that was done to a file of the target, or, in a dry run, would be."""

    did: str
    """`wrote`, `repaired`, `kept` or `removed`."""
    file: str
    size: int | None = None


def prepare(
    vectors: str,
    *,
    ids: str | None,
    masks: Mapping[str, str],
    name: str,
    layout: Layout | None,
    dim: int | None,
    metric: Metric,
    invalid_rows: InvalidRows = "refuse",
    progress: Progress,
) -> Publication | Inspection:
    """Look at all of the files. An Inspection is one with refusals: the service would not load them.

    LoadError where a file changes meanwhile; StartupError for a manifest.
    """
    if vectors.endswith(".json"):
        raise StartupError(f"expected the .npy file to publish, got {vectors}: a manifest is what comes out")
    storage = LocalStorage(COMMAND_LINE)
    try:
        before = storage.fingerprint(vectors), storage.fingerprint(ids) if ids is not None else None
        masked = {mask: storage.fingerprint(path) for mask, path in masks.items()}
    except LoadError as error:
        return _refused(vectors, error)
    found = inspect_source(
        vectors,
        storage=storage,
        layout=layout,
        dim=dim,
        ids=ids,
        masks=masks,
        metric=metric,
        invalid_rows=invalid_rows,
        progress=lambda done, total: progress("check", done, total),
    )
    if not found.good or found.rows is None or found.dim is None or found.layout is None:
        return found
    return Publication(
        name=name,
        vectors=_original(vectors, before[0], f"{name}-{{}}.npy", progress),
        ids=_original(ids, before[1], f"{name}-{{}}.ids.npy", progress)
        if ids is not None and before[1] is not None
        else None,
        masks={
            mask: _original(path, masked[mask], f"{name}-{{}}.mask.npy", progress)
            for mask, path in masks.items()
        },
        rows=found.rows,
        dim=found.dim,
        layout=found.layout,
    )


def publish(
    publication: Publication,
    target: Target,
    *,
    keep: int | None,
    dry_run: bool,
    progress: Progress,
) -> Iterator[Step]:
    """Do it, telling each step when it is done. `keep` None removes nothing; a dry run only looks.

    LoadError where a file changed since `prepare`; PublishConflict where another publisher was faster;
    StartupError where the target refuses.
    """
    with contextlib.nullcontext() if dry_run else target.exclusive(publication.name):
        before = target.manifest(publication.name)
        _require_manifest(before, target.uri(f"{publication.name}.json"))
        for original in publication.originals:
            yield _place(original, publication, target, dry_run=dry_run, progress=progress)
        content = publication.manifest()
        if content == before:
            yield Step("kept", f"{publication.name}.json")
        else:
            if not dry_run:
                target.commit(publication.name, content, replacing=before)
            yield Step("wrote", f"{publication.name}.json", len(content))
        if dry_run:
            return
        for original in publication.originals:
            # One that was kept may have been removed by another publisher before the manifest named it.
            if target.size(original.file) is None:
                _put(original, publication, target, progress)
                yield Step("repaired", original.file, original.fingerprint.size)
        if keep is not None:
            yield from (Step("removed", file) for file in prune(target, publication.name, keep=keep))


def _place(
    original: Original,
    publication: Publication,
    target: Target,
    *,
    dry_run: bool,
    progress: Progress,
) -> Step:
    size = original.fingerprint.size
    there = target.digest(original.file, lambda done: progress("compare", done, size))
    if there == original.sha256:
        return Step("kept", original.file, size)
    if not dry_run:
        _put(original, publication, target, progress)
    return Step("wrote" if there is None else "repaired", original.file, size)


def _put(original: Original, publication: Publication, target: Target, progress: Progress) -> None:
    target.put(
        original.file,
        _chunks(original, progress),
        size=original.fingerprint.size,
        name=publication.name,
    )


def _original(path: str, fingerprint: Fingerprint, pattern: str, progress: Progress) -> Original:
    digest = hashlib.sha256()
    for chunk in _read(path, fingerprint, lambda done: progress("hash", done, fingerprint.size)):
        digest.update(chunk)
    sha256 = digest.hexdigest()
    return Original(path=path, fingerprint=fingerprint, sha256=sha256, file=pattern.format(sha256[:32]))


def _chunks(original: Original, progress: Progress) -> Iterator[memoryview]:
    """The bytes that were checked; LoadError before the last one is taken for good where they are others."""
    digest, size = hashlib.sha256(), original.fingerprint.size
    for chunk in _read(original.path, original.fingerprint, lambda done: progress("write", done, size)):
        digest.update(chunk)
        yield chunk
    if digest.hexdigest() != original.sha256:
        raise LoadError(
            LoadCode.CHANGED_WHILE_READING,
            f"{original.path} changed while it was published; publish again when its writer is done",
            stage=Stage.FETCH,
        )


def _read(path: str, fingerprint: Fingerprint, progress: Callable[[int], None]) -> Iterator[memoryview]:
    with LocalStorage(COMMAND_LINE).open(path, fingerprint) as reader:
        sizes = (min(CHUNK_BYTES, reader.size - start) for start in range(0, reader.size, CHUNK_BYTES))
        yield from read_chunks(
            reader, 0, sizes, sink=lambda _: None, cancelled=lambda: False, progress=progress
        )
        reader.verify()


def _require_manifest(content: bytes | None, uri: str) -> None:
    """A .json that is no manifest belongs to somebody else."""
    if content is None:
        return
    try:
        parse_manifest(content, uri=uri)
    except LoadError as error:
        raise StartupError(
            f"{error.detail}. It is not replaced: remove it, or publish under another --name"
        ) from None


def _refused(path: str, error: LoadError) -> Inspection:
    found = Inspection(file=path.encode(errors="replace").decode())
    found.refuse(error)
    return found
