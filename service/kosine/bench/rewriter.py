"""Replaces the file of an index while a load runs, and notes when its version was seen served."""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING

from kosine.bench.reloads import Reload
from kosine.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence

    from kosine.bench.files import Alternating
    from kosine.bench.reloads import Window

__all__ = ("Rewriter",)

_POLL_SECONDS = 0.02
_SEEN_WITHIN = 60.0


class Rewriter:
    """A thread that renames when `windows` say, but never before the version of the last rename is served."""

    def __init__(
        self,
        files: Alternating,
        *,
        version: Callable[[], str | None],
        rolled: MutableMapping[str | None, int],
        windows: Sequence[Window],
    ) -> None:
        """`version` asks the service; `rolled` learns by how far the rows of each version are rolled."""
        self._files = files
        self._version = version
        self._rolled = rolled
        self._windows = windows
        self._reloads: list[Reload] = []
        self._failure: StartupError | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, at: float) -> None:
        """The load begins `at` that time of the monotonic clock."""
        self._thread = threading.Thread(
            target=self._run, args=(at,), name="kosine-bench-rewriter", daemon=True
        )
        self._thread.start()

    def finish(self) -> list[Reload]:
        """The load is over: wait for a reload under way, begin no other. Raises StartupError."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self._reloads

    def _run(self, at: float) -> None:
        try:
            for stop, due in ((window.stop, due) for window in self._windows for due in window.renames):
                if self._over.wait(max(0.0, at + due - monotonic())):
                    return
                # Where the reload before took too long, a quiet window must not pay for it.
                if monotonic() < at + stop:
                    self._reload(at)
        except StartupError as error:
            self._failure = error
        except OSError as error:
            self._failure = StartupError(f"cannot replace the file: {error.strerror}")

    def _reload(self, at: float) -> None:
        before = self._version()
        renamed = monotonic()
        self._files.replace()
        while (now := self._version()) in {before, None}:
            if monotonic() - renamed > _SEEN_WITHIN:
                raise StartupError(
                    f"the index did not change its version within {_SEEN_WITHIN:.0f} s of a new file; "
                    "expected --file to be the file it reads, and its reloads to succeed"
                )
            threading.Event().wait(_POLL_SECONDS)
        self._rolled[now] = self._files.rolled
        self._reloads.append(Reload(renamed=round(renamed - at, 6), seen=round(monotonic() - at, 6)))
