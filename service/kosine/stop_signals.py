"""SIGTERM and SIGINT: unready first, then stop; a second one means now."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from kosine.serving.health import Health

__all__ = ("StopSignals",)


class StopSignals:
    """Turns the first signal into an orderly end and the second into an end."""

    def __init__(self, *, health: Health, stop: Callable[[], None], delay: float) -> None:
        self._health = health
        self._stop = stop
        self._delay = delay
        self._log = structlog.get_logger("kosine")

    def install(self) -> None:
        """Take both signals over, on the running loop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self._health.draining:
            self._log.warning("killed", signal=number.name)
            sys.stderr.flush()
            # No finally blocks, no atexit: whoever sends a second signal does not want to wait.
            os._exit(128 + number)
        self._health.draining = True
        self._log.info("draining", signal=number.name, delay=float(self._delay))
        asyncio.get_running_loop().call_later(self._delay, self._stop)
