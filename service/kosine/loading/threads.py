"""Blocking work of loading: off the event loop, and under a time limit.

Every call gets a fresh daemon thread instead of a worker of a pool. A read from a dead NFS server cannot be
interrupted: a pool would lose that worker for ever, and wait for it when the process exits. Here the caller
is told `Overdue`, its load slot goes back at once, and what the thread still brings is let go when it comes.
Starting a thread costs 0.1 ms; a load takes seconds.

The threads are niced, so that a load takes what engine and event loop leave. Not to the last: a thread
that is never scheduled while it holds the interpreter lock holds everybody up.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from kosine.loading.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

__all__ = ("LoaderThreads", "Overdue")

T = TypeVar("T")

_NICEST = 19


class Overdue(Exception):
    """The call did not come back in time; its thread was left behind."""


class LoaderThreads:
    """Runs calls in threads named `kosine-loader-NAME`; at most `slots` callers hold a load slot.

    `nice` is added to the niceness of the process for these threads, and beside a version that serves they
    compute `share` of their time.
    """

    def __init__(self, *, slots: int, nice: int = 0, share: float = 1.0) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._nice = nice
        self._share = share
        self._left_behind: Counter[str] = Counter()

    def pace(self) -> Pace:
        """Of one load beside a version that serves."""
        return Pace(self._share)

    def slot(self) -> AbstractAsyncContextManager[None]:
        """One of the load slots, for the time of an `async with`; first come, first served."""
        return self._slots

    def left_behind(self, name: str) -> int:
        """Threads of `name` that were given up and still run."""
        return self._left_behind[name]

    async def run(
        self, call: Callable[[], T], *, name: str, within: float, late: Callable[[T], None] | None = None
    ) -> T:
        """What `call` returns or raises; Overdue after `within` seconds.

        A result that nobody waits for any more is given to `late`, in a thread too.
        """
        job = _Job(call, late, partial(self._returned, name))
        self._start(job.work, name)
        try:
            done, _ = await asyncio.wait({job.future}, timeout=within)
            if not done:
                raise Overdue
            return job.future.result()
        finally:
            if not job.future.done():
                job.future.cancel()
                self._left_behind[name] += 1

    def _returned(self, name: str, dispose: Callable[[], None] | None) -> None:
        self._left_behind[name] -= 1
        if dispose is not None:
            self._start(dispose, name)

    def _start(self, call: Callable[[], None], name: str) -> None:
        def work() -> None:
            os.setpriority(os.PRIO_PROCESS, 0, min(_NICEST, os.getpriority(os.PRIO_PROCESS, 0) + self._nice))
            call()

        threading.Thread(target=work, name=f"kosine-loader-{name}", daemon=True).start()


class _Job(Generic[T]):
    """One call; its future is cancelled when nobody waits any more."""

    def __init__(
        self,
        call: Callable[[], T],
        late: Callable[[T], None] | None,
        returned: Callable[[Callable[[], None] | None], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self._loop.create_future()
        self._call = call
        self._late = late
        self._returned = returned

    def work(self) -> None:
        try:
            result = self._call()
        except Exception as error:  # noqa: BLE001  whoever awaits the future gets it
            self._tell(partial(self._failed, error))
            return
        if not self._tell(partial(self._succeeded, result)) and self._late is not None:
            self._late(result)

    def _tell(self, callback: Callable[[], None]) -> bool:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop was closed while this thread was busy
            return False
        return True

    def _succeeded(self, result: T) -> None:
        if not self.future.done():
            self.future.set_result(result)
        else:
            self._returned(partial(self._late, result) if self._late is not None else None)

    def _failed(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)
        else:
            self._returned(None)
