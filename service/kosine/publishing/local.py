"""A folder of this machine as a target.

Each file is written aside, flushed to the disk and renamed; the folder is flushed before the manifest is
written, so that no power cut leaves a manifest that names a missing file. A lock file that the kernel lets go
of when its holder dies keeps a second publisher of the same name out from the first look to the last rename.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
from typing import TYPE_CHECKING

from kosine.errors import LoadCode, LoadError, StartupError
from kosine.loading.body import CHUNK_BYTES, read_chunks
from kosine.loading.local import LocalStorage
from kosine.loading.manifest import MAX_BYTES
from kosine.publishing.target import PublishConflict, Stored
from kosine.source_uri import COMMAND_LINE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

__all__ = ("LocalTarget",)

_FASTER = "another publisher was faster: {} says something else now, and that is what serves; publish again"


class LocalTarget:
    """Implements `Target`; the folder is there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def uri(self, file: str) -> str:
        """See `Target.uri`."""
        return str(self._folder / file)

    @contextlib.contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """See `Target.exclusive`. What killed publishers of this name left behind is removed."""
        path = self._folder / f".{name}.json.lock"
        with self._refusing():
            # The file stays: whoever removed it might remove the one that another process just locked.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            with self._refusing():
                _lock(descriptor, name)
                for partial in self._files(rf"\.{name}\.[0-9a-f]{{16}}\.partial"):
                    partial.unlink()
            yield
        finally:
            os.close(descriptor)

    def manifest(self, name: str) -> bytes | None:
        """See `Target.manifest`."""
        with self._refusing():
            try:
                with (self._folder / f"{name}.json").open("rb") as file:
                    return file.read(MAX_BYTES + 1)
            except FileNotFoundError:
                return None

    def digest(self, file: str, progress: Callable[[int], None]) -> str | None:
        """See `Target.digest`: of all bytes, as they are on the disk."""
        storage, uri, digest = LocalStorage(COMMAND_LINE), self.uri(file), hashlib.sha256()
        try:
            with storage.open(uri, storage.fingerprint(uri)) as reader:
                sizes = (
                    min(CHUNK_BYTES, reader.size - start) for start in range(0, reader.size, CHUNK_BYTES)
                )
                for _ in read_chunks(
                    reader, 0, sizes, sink=digest.update, cancelled=lambda: False, progress=progress
                ):
                    pass
        except LoadError as error:
            if error.code is LoadCode.SOURCE_MISSING:
                return None
            raise
        return digest.hexdigest()

    def size(self, file: str) -> int | None:
        """See `Target.size`."""
        with self._refusing():
            try:
                return (self._folder / file).stat().st_size
            except FileNotFoundError:
                return None

    def put(self, file: str, chunks: Iterable[memoryview], *, size: int, name: str) -> None:
        """See `Target.put`."""
        del size
        self._replace(file, chunks, name=name)

    def commit(self, name: str, content: bytes, *, replacing: bytes | None) -> None:
        """See `Target.commit`. Call it within `exclusive`."""
        with self._refusing():
            self._flush()
        if self.manifest(name) != replacing:
            raise PublishConflict(_FASTER.format(f"{name}.json"))
        self._replace(f"{name}.json", [memoryview(content)], name=name)
        with self._refusing():
            self._flush()

    def listing(self) -> list[Stored]:
        """See `Target.listing`."""
        with self._refusing():
            return [_stored(path) for path in self._files(r"[^.].*")]

    def read(self, stored: Stored) -> bytes:
        """See `Target.read`."""
        with self._refusing():
            try:
                with (self._folder / stored.file).open("rb") as file:
                    return file.read(MAX_BYTES)
            except FileNotFoundError:
                return b""

    def remove(self, stored: Stored) -> bool:
        """See `Target.remove`."""
        path = self._folder / stored.file
        with self._refusing(), contextlib.suppress(FileNotFoundError):
            if _stored(path) == stored:
                path.unlink()
                return True
        return False

    def _replace(self, file: str, chunks: Iterable[memoryview], *, name: str) -> None:
        partial = self._folder / f".{name}.{secrets.token_hex(8)}.partial"
        with self._refusing(), contextlib.ExitStack() as undone:
            with partial.open("xb") as target:
                undone.callback(partial.unlink)
                for chunk in chunks:
                    target.write(chunk)
                target.flush()
                os.fsync(target.fileno())
            partial.rename(self._folder / file)
            undone.pop_all()

    def _flush(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _files(self, pattern: str) -> list[Path]:
        return [
            path for path in self._folder.iterdir() if re.fullmatch(pattern, path.name) and path.is_file()
        ]

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StartupError(
                f"cannot publish to {self._folder}: {error.strerror}; what is served there has not changed"
            ) from None


def _lock(descriptor: int, name: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PublishConflict(
            f"another publisher of {name} is at work in this folder; nothing was written. "
            "Publish again when it is done"
        ) from None


def _stored(path: Path) -> Stored:
    facts = path.stat()
    return Stored(file=path.name, modified=facts.st_mtime, token=f"{facts.st_ino}-{facts.st_mtime_ns}")
