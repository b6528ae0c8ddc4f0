"""Local copies of what each index served: of the last good version in its store, and of those in its history.

What a load reads is written aside as it passes. Once the version serves, the copy takes its place: files
named by their SHA-256, flushed and renamed, then the record that names them, last. So whoever is killed at
any point leaves the old copy or the new one. A copy is hashed whole before it is used, and dropped if it is
not what its record says. Files that neither the record nor the history names go, and all of them with their
index. Whatever the disk does here is logged, and hurts nobody.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import structlog

from kosine.loading.abandoned_copies import FoldersInUse, remove_unused
from kosine.loading.history import History
from kosine.loading.version_files import VersionFiles, by_role, files_of, mask_role
from kosine.source_uri import local_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kosine.loading.job import Sources
    from kosine.loading.source import Reader
    from kosine.settings import IndexSettings

__all__ = ("Copies", "PendingCopy", "StoredCopy", "keeps_copies")

_RECORD = "current.json"
_HISTORY = "history.json"


def keeps_copies(settings: IndexSettings) -> bool:
    """Whether there are to be copies of that index."""
    return local_path(settings.uri) is None or settings.history > 0


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
        self._found: dict[str, VersionFiles | None] = {}
        self._histories: dict[str, History] = {}
        self._in_use = FoldersInUse()

    def keep_only(self, names: frozenset[str]) -> None:
        """Of these indexes there may be copies; those that nobody needs any more go. Blocks."""
        wanted = frozenset(self._folder / name for name in names)
        dropped = self._in_use.let_go(but=wanted)
        for folder in dropped:
            self._found.pop(folder.name, None)
            self._histories.pop(folder.name, None)
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
        if local_path(settings.uri) is not None:
            return None
        record = self._whole(name)
        if record is None or not record.is_of(settings):
            return None
        return record.sources()

    def stored(self, name: str, sources: Sources) -> StoredCopy | None:
        """The copy of exactly `sources`."""
        record = self._whole(name)
        if record is None or record.sources() != sources:
            return None
        return self._stored(name, record)

    def earlier(self, name: str, files: VersionFiles) -> StoredCopy | None:
        """The copy of a version of the history, if it is whole."""
        try:
            self._check_content(name, files)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            self._unusable(name, error)
            return None
        return self._stored(name, files)

    def history(self, name: str) -> History:
        """What was remembered of `name`."""
        if name not in self._histories:
            self._histories[name] = self._read_history(name)
        return self._histories[name]

    def remember(self, name: str, history: History) -> None:
        """For the next start; copies that it does not name go. Blocks."""
        folder = self._folder / name
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.hold(name)
            _write(folder, _HISTORY, msgspec.json.encode(history))
            self._histories[name] = history
            self.sweep(name)
        except OSError as error:
            structlog.get_logger(__name__).warning("copy_failed", index=name, reason=_named(error))

    def sweep(self, name: str, *, new: VersionFiles | None = None) -> None:
        """Remove files that neither the record, nor the history, nor `new` names. Raises OSError."""
        named = [self._record(name), new, *(each.files for each in self.history(name).versions)]
        wanted = {file for each in named if each is not None for file in each.copies().values()}
        for path in (self._folder / name).iterdir():
            if path.name not in {*wanted, _RECORD, _HISTORY}:
                path.unlink()

    def begin(
        self, name: str, settings: IndexSettings, sources: Sources, *, earlier: bool = False
    ) -> PendingCopy:
        """Begin the copy that is to replace the one of `name`; an `earlier` version replaces none.

        What that one holds of `sources` needs not be read again.
        """
        record = self._found.get(name)
        carried = _carried(record, sources) if record is not None else {}
        return PendingCopy(self, name, self._folder / name, settings, sources, carried, earlier=earlier)

    def took_over(self, name: str, record: VersionFiles) -> None:
        """A new copy of `name` is in place."""
        self._found[name] = record

    def _whole(self, name: str) -> VersionFiles | None:
        if name not in self._found:
            self._found[name] = self._check(name)
        return self._found[name]

    def _record(self, name: str) -> VersionFiles | None:
        """What the record names, whole or not."""
        if name in self._found:
            return self._found[name]
        with contextlib.suppress(OSError, ValueError):
            return msgspec.json.decode((self._folder / name / _RECORD).read_bytes(), type=VersionFiles)
        return None

    def _check(self, name: str) -> VersionFiles | None:
        folder = self._folder / name
        try:
            record = msgspec.json.decode((folder / _RECORD).read_bytes(), type=VersionFiles)
            self._check_content(name, record)
            with contextlib.suppress(OSError):  # it may be read only
                os.utime(folder)  # it is used
        except FileNotFoundError as error:
            if error.filename == str(folder / _RECORD):
                return None
            self._unusable(name, error)
        except (OSError, ValueError) as error:  # of the record's JSON, too
            self._unusable(name, error)
        else:
            return record
        with contextlib.suppress(OSError):
            (folder / _RECORD).unlink(missing_ok=True)
        return None

    def _check_content(self, name: str, files: VersionFiles) -> None:
        """ValueError, or OSError, unless every copy is there and is what it was."""
        if files.sha256.keys() != files.seen().keys():
            raise ValueError("its record does not tell of the files that it names")
        for role, file in files.copies().items():
            path = self._folder / name / file
            if _sha256(path) != files.sha256[role]:
                path.unlink()
                raise ValueError(f"the copy of the {role} is not what it was")

    def _read_history(self, name: str) -> History:
        path = self._folder / name / _HISTORY
        try:
            return msgspec.json.decode(path.read_bytes(), type=History)
        except FileNotFoundError:
            return History()
        except (OSError, ValueError) as error:
            self._unusable(name, error)
            return History()

    def _stored(self, name: str, files: VersionFiles) -> StoredCopy:
        paths = {role: self._folder / name / file for role, file in files.copies().items()}
        return StoredCopy(
            vectors=paths["vectors"],
            ids=paths.get("ids"),
            masks={each: paths[mask_role(each)] for each in files.masks},
        )

    def _unusable(self, name: str, error: OSError | ValueError) -> None:
        reason = str(error)
        if isinstance(error, FileNotFoundError):
            reason = "a file of it is missing"
        elif isinstance(error, OSError):
            reason = _named(error)
        structlog.get_logger(__name__).warning("copy_unusable", index=name, reason=reason)


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
        *,
        earlier: bool,
    ) -> None:
        self._copies = copies
        self._name = name
        self._folder = folder
        self._settings = settings
        self._sources = sources
        self._carried = carried
        """SHA-256 of files of the copy before that are part of this one."""
        self._earlier = earlier
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

    def found(self, sha256: Mapping[str, str]) -> None:
        """Of what was read, by role, in hex."""
        self._digests = dict(sha256)

    def commit(self) -> None:
        """Put the copy in its place, unless it is not whole. Blocks."""
        if not self._is_whole():
            self.discard()
            return
        with self._given_up_on_failure():
            record = files_of(self._settings, self._sources, {**self._carried, **self._digests})
            files = record.copies()
            for role, descriptor in self._files.items():
                os.fsync(descriptor)
                self._partial(role).replace(self._folder / files[role])
            _sync(self._folder)
            if not self._earlier:
                _write(self._folder, _RECORD, msgspec.json.encode(record))
                self._copies.took_over(self._name, record)
            self._copies.sweep(self._name, new=record)
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
            for role, fingerprint in by_role(self._sources).items()
            if role not in self._carried
        }
        return sizes == self._written and sizes.keys() == self._digests.keys() == self._files.keys()

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


def _carried(record: VersionFiles, sources: Sources) -> dict[str, str]:
    """What a copy holds of `sources`."""
    before, wanted = by_role(record.sources()), by_role(sources)
    return {role: digest for role, digest in record.sha256.items() if before.get(role) == wanted.get(role)}


def _write(folder: Path, name: str, content: bytes) -> None:
    """In the place of what is there; whoever is killed leaves one of both."""
    partial = folder / f"{name}.partial"
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / name)
    _sync(folder)


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
