"""Copies of indexes that are configured no more: whose they are, and when they may go.

A folder of copies may be shared by processes that are configured differently, as replicas are while a new
configuration reaches them. So each holds a shared lock on the folder of every index it has, and a folder goes
only when nobody holds one: at once where this process had the index until now, else once nobody has used it
for a week, because whoever uses it may not be running. Only files that copies consist of are removed, and a
folder with anything else in it stays. Locks go with their process, whatever ends it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
import time
from typing import TYPE_CHECKING

from kosine.settings import INDEX_NAME_PATTERN

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ("UNUSED_SECONDS", "FoldersInUse", "remove_unused")

UNUSED_SECONDS = 7 * 86_400.0
_NAME = re.compile(INDEX_NAME_PATTERN)
_OURS = re.compile(
    r"(current|history)\.json(\.partial)?|[0-9a-f]{64}(\.ids|\.mask)?\.npy"
    r"|(vectors|ids|mask\.[-_a-z0-9]+)\.partial"
)
_MOST = 1000
"""Folders looked at in one go."""


class FoldersInUse:
    """Folders that this process holds. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Path, int] = {}

    def hold(self, folder: Path) -> None:
        """Keep others from removing it; nothing where there is none. Raises OSError."""
        with self._lock:
            while folder not in self._held:
                try:
                    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                except FileNotFoundError:
                    return
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                if _is(folder, descriptor):
                    self._held[folder] = descriptor
                else:  # removed while the lock was waited for
                    os.close(descriptor)

    def let_go(self, *, but: frozenset[Path] = frozenset()) -> frozenset[Path]:
        """Hold no other folder than those; which it did until now."""
        with self._lock:
            gone = frozenset(self._held) - but
            for folder in gone:
                os.close(self._held.pop(folder))
            return gone


def remove_unused(root: Path, *, wanted: frozenset[Path], dropped: frozenset[Path]) -> list[str]:
    """Remove folders in `root` but for `wanted`; names of those that went. Raises OSError.

    `dropped` were in use by this process until now.
    """
    found = [folder for folder in sorted(root.iterdir())[:_MOST] if folder not in wanted]
    return [folder.name for folder in found if _removed(folder, at_once=folder in dropped)]


def _removed(folder: Path, *, at_once: bool) -> bool:
    if not _NAME.fullmatch(folder.name):
        return False
    with contextlib.ExitStack() as closed, contextlib.suppress(NotADirectoryError, BlockingIOError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        closed.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        names = [path.name for path in folder.iterdir()]
        if not all(_OURS.fullmatch(name) for name in names):
            return False
        if not at_once and time.time() - _last_used(descriptor, names) < UNUSED_SECONDS:
            return False
        for name in names:
            os.unlink(name, dir_fd=descriptor)
        folder.rmdir()
        return True
    return False


def _last_used(descriptor: int, names: list[str]) -> float:
    times = [os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mtime for name in names]
    return max([os.fstat(descriptor).st_mtime, *times])


def _is(folder: Path, descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    return False
