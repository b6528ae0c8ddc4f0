"""Lets a load rest between pieces of work, so that it never holds a core for long.

However nice a loading thread is, p99 rises beside it (docs/performance.md): a request that wakes up while it
computes seems to wait for the scheduler's next tick, several times on its way. A thread that sleeps after a
millisecond of work gives the core up by itself.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("BURST", "Pace")

BURST = 0.001
"""Seconds of processor time between two rests; a piece of work should take less."""


class Pace:
    """Of one load; each of its threads rests for itself."""

    def __init__(
        self,
        share: float = 1.0,
        *,
        clock: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`share` of its time, above 0 and up to 1, a thread may compute; `clock` is its processor time."""
        self._rest = (1.0 - share) / share
        self._clock = clock
        self._sleep = sleep
        self._threads = threading.local()

    def rest(self, seconds: float) -> None:
        """Behind a piece of work that other threads had a part in."""
        if self._rest:
            self._sleep(seconds)

    def breathe(self) -> None:
        """Between two pieces of work, in the thread that does them: rest if it has worked for a burst."""
        if not self._rest:
            return
        now = self._clock()
        worked = now - getattr(self._threads, "since", now)
        if worked >= BURST:
            self._sleep(worked * self._rest)
            now = self._clock()
        elif worked:
            return
        self._threads.since = now
