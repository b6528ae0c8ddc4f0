"""A local copy of the last good version of each index in a store, for a start while the store is down.

What a load reads is written aside as it passes. Once the version serves, the copy takes its place: files
named by their SHA-256, flushed and renamed, then the record that names them, last. So whoever is killed at
any point leaves the old copy or the new one. A copy is hashed whole before it is used, and dropped if it is
not what its record says. One copy an index is kept, while it is configured. Whatever the disk does here is
logged, and hurts nobody.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import structlog
from msgspec import Struct, field

from kosine.loading.abandoned_copies import FoldersInUse, remove_unused
from kosine.loading.job import Sources
from kosine.loading.manifest import Manifest  # noqa: TC001  msgspec reads the annotations
from kosine.loading.source import Fingerprint  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kosine.loading.source import Reader
    from kosine.settings import IndexSettings

__all__ = ("Copies", "PendingCopy", "StoredCopy", "mask_role")

_RECORD = "current.json"
_ENDINGS = {"vectors": ".npy", "ids": ".ids.npy"}
_MASK = "mask."
"""Before the name of a mask; names have no dots."""


def mask_role(name: str) -> str:
    """What the mask `name` is in a copy, beside `vectors` and `ids`."""
    return f"{_MASK}{name}"


class _Record(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What is kept of an index, and what the store called it."""

    uri: str
    ids_uri: str | None
    vectors: Fingerprint
    ids: Fingerprint | None
    manifest: Fingerprint | None
    named: Manifest | None
    sha256: dict[str, str]
    masks: dict[str, Fingerprint] = field(default_factory=dict)
    mask_uris: dict[str, str] = field(default_factory=dict)

    def sources(self) -> Sources:
        return Sources(
            vectors=self.vectors, ids=self.ids, masks=self.masks, manifest=self.manifest, named=self.named
        )

    def files(self) -> dict[str, str]:
        return {role: f"{digest}{_ending(role)}" for role, digest in self.sha256.items()}

    def is_of(self, settings: IndexSettings) -> bool:
        return (self.uri, self.ids_uri, self.mask_uris) == (settings.uri, settings.ids, settings.masks)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCopy:
    """Paths of a copy that was found whole."""

    vectors: Path
    ids: Path | None
    masks: Mapping[str, Path]


class Copies:
    """Thread-safe as long as one index is loaded once at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._found: dict[str, _Record | None] = {}
        self._in_use = FoldersInUse()

    def keep_only(self, names: frozenset[str]) -> None:
        """Of these indexes there may be copies; those that nobody needs any more go. Blocks."""
        wanted = frozenset(self._folder / name for name in names)
        dropped = self._in_use.let_go(but=wanted)
        for folder in dropped:
            self._found.pop(folder.name, None)
        log = structlog.get_logger(__name__)
        try:
            for folder in wanted:
                self._in_use.hold(folder)
            removed = remove_unused(self._folder, wanted=wanted, dropped=dropped)
        except FileNotFoundError:  # nothing was ever copied
            return
        except OSError as error:
            log.warning("copy_not_removed", reason=_named(error))
            return
        for name in removed:
            log.info("copy_removed", index=name)

    def close(self) -> None:
        """Use no folder any more."""
        self._in_use.let_go()

    def hold(self, name: str) -> None:
        """Keep other processes from removing the folder of `name`. Raises OSError."""
        self._in_use.hold(self._folder / name)

    def recall(self, name: str, settings: IndexSettings) -> Sources | None:
        """What the copy of `name` was made of, if it is whole and of what is configured now."""
        record = self._whole(name)
        if record is None or not record.is_of(settings):
            return None
        return record.sources()

    def stored(self, name: str, sources: Sources) -> StoredCopy | None:
        """The copy of exactly `sources`."""
        record = self._whole(name)
        if record is None or record.sources() != sources:
            return None
        paths = {role: self._folder / name / file for role, file in record.files().items()}
        return StoredCopy(
            vectors=paths["vectors"],
            ids=paths.get("ids"),
            masks={name: paths[mask_role(name)] for name in sources.masks},
        )

    def begin(self, name: str, settings: IndexSettings, sources: Sources) -> PendingCopy:
        """Begin the copy that is to replace the one of `name`.

        What that one holds of `sources` needs not be read again.
        """
        record = self._found.get(name)
        carried = _carried(record, sources) if record is not None else {}
        return PendingCopy(self, name, self._folder / name, settings, sources, carried)

    def took_over(self, name: str, record: _Record) -> None:
        """A new copy of `name` is in place."""
        self._found[name] = record

    def _whole(self, name: str) -> _Record | None:
        if name not in self._found:
            self._found[name] = self._check(name)
        return self._found[name]

    def _check(self, name: str) -> _Record | None:
        folder = self._folder / name
        try:
            record = msgspec.json.decode((folder / _RECORD).read_bytes(), type=_Record)
            if record.sha256.keys() != _by_role(record.sources()).keys():
                raise ValueError("its record does not tell of the files that it names")
            for role, file in record.files().items():
                if _sha256(folder / file) != record.sha256[role]:
                    raise ValueError(f"the copy of the {role} is not what it was")
            with contextlib.suppress(OSError):  # it may be read only
                os.utime(folder)  # it is used
        except FileNotFoundError as error:
            if error.filename == str(folder / _RECORD):
                return None
            reason = "a file of it is missing"
        except OSError as error:
            reason = _named(error)
        except ValueError as error:  # of the record's JSON, too
            reason = str(error)
        else:
            return record
        structlog.get_logger(__name__).warning("copy_unusable", index=name, reason=reason)
        shutil.rmtree(folder, ignore_errors=True)
        return None


class PendingCopy:
    """A copy in the making; `commit` or `discard` ends it."""

    def __init__(
        self,
        copies: Copies,
        name: str,
        folder: Path,
        settings: IndexSettings,
        sources: Sources,
        carried: dict[str, str],
    ) -> None:
        self._copies = copies
        self._name = name
        self._folder = folder
        self._settings = settings
        self._sources = sources
        self._carried = carried
        """SHA-256 of files of the copy before that are part of this one."""
        self._files: dict[str, int] = {}
        self._written: dict[str, int] = {}
        self._digests: dict[str, str] = {}

    def keeping(self, reader: Reader, role: str) -> Reader:
        """`reader`, whose bytes are written aside as they are read."""
        self._carried.pop(role, None)
        with self._given_up_on_failure():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._copies.hold(self._name)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            self._files[role] = os.open(self._partial(role), flags, 0o600)
            self._written[role] = 0
        return _KeptReader(reader, self, role)

    def write(self, role: str, offset: int, content: memoryview) -> None:
        """Take `content`, which stands at `offset`; in order, or again."""
        if role not in self._files:
            return
        with self._given_up_on_failure():
            done = 0
            while done < len(content):
                done += os.pwrite(self._files[role], content[done:], offset + done)
            if offset <= self._written[role]:
                self._written[role] = max(self._written[role], offset + len(content))

    def found(self, digests: Mapping[str, bytes]) -> None:
        """SHA-256 of what was read, by role."""
        self._digests = {role: digest.hex() for role, digest in digests.items()}

    def commit(self) -> None:
        """Put the copy in the place of the one before, unless it is not whole. Blocks."""
        if not self._is_whole():
            self.discard()
            return
        with self._given_up_on_failure():
            record = self._record()
            files = record.files()
            for role, descriptor in self._files.items():
                os.fsync(descriptor)
                self._partial(role).replace(self._folder / files[role])
            _sync(self._folder)
            self._write_record(msgspec.json.encode(record))
            self._copies.took_over(self._name, record)
            for path in self._folder.iterdir():
                if path.name not in {*files.values(), _RECORD}:
                    path.unlink()
        self._close()

    def discard(self) -> None:
        """Forget what was written."""
        self._close()
        for role in self._written:
            with contextlib.suppress(OSError):
                self._partial(role).unlink(missing_ok=True)

    def _is_whole(self) -> bool:
        sizes = {
            role: fingerprint.size
            for role, fingerprint in _by_role(self._sources).items()
            if role not in self._carried
        }
        return sizes == self._written and sizes.keys() == self._digests.keys() == self._files.keys()

    def _record(self) -> _Record:
        sources, settings = self._sources, self._settings
        return _Record(
            uri=settings.uri,
            ids_uri=settings.ids,
            vectors=sources.vectors,
            ids=sources.ids,
            manifest=sources.manifest,
            named=sources.named,
            sha256={**self._carried, **self._digests},
            masks=dict(sources.masks),
            mask_uris=settings.masks,
        )

    def _write_record(self, content: bytes) -> None:
        partial = self._folder / f"{_RECORD}.partial"
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._folder / _RECORD)
        _sync(self._folder)

    def _partial(self, role: str) -> Path:
        return self._folder / f"{role}.partial"

    @contextlib.contextmanager
    def _given_up_on_failure(self) -> Iterator[None]:
        """A disk that fails is told once, and not asked again by this copy."""
        try:
            yield
        except OSError as error:
            structlog.get_logger(__name__).warning("copy_failed", index=self._name, reason=_named(error))
            self.discard()

    def _close(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])


class _KeptReader:
    """Implements `Reader` over another one."""

    def __init__(self, reader: Reader, copy: PendingCopy, role: str) -> None:
        self.size = reader.size
        self.buffer_bytes = reader.buffer_bytes
        self._reader = reader
        self._copy = copy
        self._role = role

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See `Reader.read_into`."""
        self._reader.read_into(offset, buffer)
        self._copy.write(self._role, offset, buffer.cast("B"))

    def lend(self, offset: int, size: int) -> memoryview | None:
        """See `Reader.lend`."""
        lent = self._reader.lend(offset, size)
        if lent is not None:
            self._copy.write(self._role, offset, lent)
        return lent

    def verify(self) -> None:
        """See `Reader.verify`."""
        self._reader.verify()


def _ending(role: str) -> str:
    return ".mask.npy" if role.startswith(_MASK) else _ENDINGS[role]


def _by_role(sources: Sources) -> dict[str, Fingerprint]:
    ids = {"ids": sources.ids} if sources.ids is not None else {}
    return {
        "vectors": sources.vectors,
        **ids,
        **{mask_role(name): fingerprint for name, fingerprint in sources.masks.items()},
    }


def _carried(record: _Record, sources: Sources) -> dict[str, str]:
    """What a copy holds of `sources`."""
    before, wanted = _by_role(record.sources()), _by_role(sources)
    return {role: digest for role, digest in record.sha256.items() if before.get(role) == wanted.get(role)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _named(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)
