"""Wakes the event loop at a time of the monotonic clock, to some ten microseconds.

Timers of event loops count whole milliseconds, longer than a fast answer takes. The kernel's timer is a file
descriptor that the loop can watch, so nothing spins. Linux only, as timerfd is.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("Alarm",)

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_NANOSECONDS = 10**9


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("first", _Timespec))


class Alarm:
    """Calls back once for each `set`; create, use and close it on the event loop."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._callback = callback
        self._fd = self._checked(self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._ring)

    def set(self, at: float) -> None:
        """Ring at that time, at once if it is past; replaces what was set."""
        total = max(1, int(at * _NANOSECONDS))
        first = _Timespec(*divmod(total, _NANOSECONDS))
        setting = _Setting(_Timespec(0, 0), first)
        self._checked(self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(setting), None))

    def close(self) -> None:
        """Ring no more."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _ring(self) -> None:
        os.read(self._fd, 8)
        self._callback()

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result
