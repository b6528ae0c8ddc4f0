"""Files of this machine, within the URI policy.

A file that is rewritten in place while it is read must never become a version. The guarantee is a sandwich:
the fingerprint (device, inode, size, mtime, ctime) before the first byte equals the one after the last, of
the open file and of whatever the path names then. Alone that leaves the racy window: the kernel stamps times
in ticks of up to 10 ms, so two writes inside one tick leave one fingerprint, and a read between them passes
both comparisons. It closes when the fingerprint was seen twice, at least 50 ms apart, before the read begins
(`refresh_policy`): a write after the second look then falls into a later tick than the one the fingerprint
carries. File systems that keep whole seconds only are recognised by their ctime, and
`Fingerprint.resolution` asks for a longer wait.

What a configuration names must lie below the roots of the policy, wherever links lead, and nothing outside
is opened: the path without links is walked from its root with O_NOFOLLOW, so that a link put there meanwhile
ends the walk. Links within a root work (`..data` of a ConfigMap).

Reads are `preadv` into the caller's buffer, never mmap: a mapped file that is truncated kills the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.source import Fingerprint
from kosine.source_uri import BadUri, FileSource, is_below

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from kosine.source_uri import UriPolicy

__all__ = ("LocalReader", "LocalStorage")

# O_NONBLOCK: a FIFO put in the file's place since must not hold the thread.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_FOLDER_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_CODES = {
    errno.ENOENT: LoadCode.SOURCE_MISSING,
    errno.ENOTDIR: LoadCode.SOURCE_MISSING,
    errno.EACCES: LoadCode.SOURCE_FORBIDDEN,
    errno.EPERM: LoadCode.SOURCE_FORBIDDEN,
}
_ADVICE = {
    LoadCode.SOURCE_MISSING: "does not exist; it is looked for again",
    LoadCode.SOURCE_FORBIDDEN: "may not be read by this process; grant read access to it and its folders",
    LoadCode.SOURCE_UNREADABLE: "could not be read",
}
_SECOND = 1_000_000_000
_COARSE = 2.0
"""FAT stamps every two seconds, the coarsest of them."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a source is now."""

    named: Path
    root: str | None = None
    """Without links: the folder that an open must not leave. None: links may lead anywhere."""
    below: str = ""
    """The path from there, without links."""

    def facts(self) -> os.stat_result:
        if self.root is None:
            return self.named.stat()
        return os.stat(f"{self.root}/{self.below}", follow_symlinks=False)  # noqa: PTH116  the same as below

    def open(self) -> int:
        """A descriptor of the file. Between look and open nobody can lead it out of the root by a link."""
        if self.root is None:
            return os.open(self.named, _FLAGS)
        *folders, name = self.below.split("/")
        folder = os.open(self.root, _FOLDER_FLAGS)
        try:
            for each in folders:
                above, folder = folder, os.open(each, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
                os.close(above)
            return os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=folder)
        finally:
            os.close(folder)


class LocalReader:
    """One open file. Implements `Reader`; reads carry their offset, so threads may share it."""

    buffer_bytes = 0

    def __init__(self, descriptor: int, *, uri: str, path: Path, fingerprint: Fingerprint) -> None:
        self.size = fingerprint.size
        self._descriptor = descriptor
        self._uri = uri
        self._path = path
        self._fingerprint = fingerprint

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See `Reader.read_into`."""
        view = buffer.cast("B")
        done = 0
        with _classified(self._uri, Stage.FETCH):
            while done < len(view):
                count = os.preadv(self._descriptor, [view[done:]], offset + done)
                if not count:
                    raise _changed(self._uri, Stage.FETCH, "it became shorter")
                done += count

    def lend(self, offset: int, size: int) -> None:
        """See `Reader.lend`: the system copies."""

    def verify(self) -> None:
        """See `Reader.verify`: the open file is untouched, and the path still names it."""
        with _classified(self._uri, Stage.FETCH):
            if _fingerprint(os.fstat(self._descriptor)) != self._fingerprint:
                raise _changed(self._uri, Stage.FETCH, "it was written to")
            try:
                now = self._path.stat()
            except FileNotFoundError:
                raise _changed(self._uri, Stage.FETCH, "it was removed") from None
            if _fingerprint(now) != self._fingerprint:
                raise _changed(self._uri, Stage.FETCH, "it was replaced")


class LocalStorage:
    """Implements `Storage` with plain system calls, within a policy; regular files only."""

    def __init__(self, policy: UriPolicy) -> None:
        self._policy = policy

    def using(self, credentials: str | None) -> Self:  # noqa: ARG002  files have none
        """See `Storage.using`."""
        return self

    def fingerprint(self, uri: str) -> Fingerprint:
        """See `Storage.fingerprint`; nothing is opened. `bad_uri`: the policy is against it."""
        place = self._find(uri, Stage.FINGERPRINT)
        with _classified(uri, Stage.FINGERPRINT):
            facts = place.facts()
        _require_file(facts, uri, Stage.FINGERPRINT)
        return _fingerprint(facts)

    @contextlib.contextmanager
    def open(self, uri: str, fingerprint: Fingerprint) -> Iterator[LocalReader]:
        """See `Storage.open`."""
        place = self._find(uri, Stage.GATE)
        with _classified(uri, Stage.GATE):
            descriptor = place.open()
        try:
            facts = os.fstat(descriptor)
            _require_file(facts, uri, Stage.GATE)
            if _fingerprint(facts) != fingerprint:
                raise _changed(uri, Stage.GATE, "it changed after it was looked at")
            yield LocalReader(descriptor, uri=uri, path=place.named, fingerprint=fingerprint)
        finally:
            os.close(descriptor)

    def _find(self, uri: str, stage: Stage) -> _Place:
        try:
            source = self._policy.admit(uri)
        except BadUri as error:
            raise LoadError(LoadCode.BAD_URI, str(error), stage=stage) from None
        if not isinstance(source, FileSource):
            raise LoadError(LoadCode.BAD_URI, f"expected a file of this machine, got {uri}", stage=stage)
        named = Path(source.path)
        if not self._policy.confines(source):
            return _Place(named)
        real = os.path.realpath(named)
        for root in map(os.path.realpath, self._policy.file_roots or ()):
            if is_below(real, root):
                return _Place(named, root, real[len(root) :].lstrip("/"))
        raise LoadError(
            LoadCode.SOURCE_FORBIDDEN,
            f"{uri} is a link out of service.file_roots; name the folder it leads to there, or copy the file",
            stage=stage,
        )


def _fingerprint(facts: os.stat_result) -> Fingerprint:
    numbers = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    return Fingerprint(
        token="-".join(f"{number:x}" for number in numbers),
        size=facts.st_size,
        # Nobody can set a ctime: one on a whole second means that the store keeps no fractions.
        resolution=0.0 if facts.st_ctime_ns % _SECOND else _COARSE,
        modified=facts.st_mtime,
    )


def _require_file(facts: os.stat_result, uri: str, stage: Stage) -> None:
    if not stat.S_ISREG(facts.st_mode):
        kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "a device, pipe or socket"
        raise LoadError(LoadCode.NOT_A_FILE, f"{uri} is {kind}; expected a regular file", stage=stage)


@contextlib.contextmanager
def _classified(uri: str, stage: Stage) -> Iterator[None]:
    """Turn what the system reports into a LoadError that names the configured uri only."""
    try:
        yield
    except OSError as error:
        code = _CODES.get(error.errno or 0, LoadCode.SOURCE_UNREADABLE)
        reason = errno.errorcode.get(error.errno or 0, "unknown")
        raise LoadError(code, f"{uri} {_ADVICE[code]} ({reason})", stage=stage, errno=reason) from None


def _changed(uri: str, stage: Stage, how: str) -> LoadError:
    return LoadError(
        LoadCode.CHANGED_WHILE_READING,
        f"{uri} changed while it was read: {how}; it is read again once it is stable. "
        "Publish by renaming a complete file into place",
        stage=stage,
    )
