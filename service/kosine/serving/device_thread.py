"""The one thread that calls the engine; the event loop never does."""

from __future__ import annotations

import asyncio
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from kosine.serving.batch import Batch

__all__ = ("Device", "DeviceThread")


class Device(Protocol):
    """Where batches run, one at a time."""

    def submit(self, batch: Batch, done: Callable[[Batch], None]) -> None:
        """Run the batch elsewhere, then call `done(batch)` on the event loop."""

    async def close(self) -> None:
        """Stop after the running batch."""


class DeviceThread:
    """A thread and a queue: half the hand-over cost of an executor and its futures."""

    def __init__(self, name: str = "kosine-device") -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[tuple[Batch, Callable[[Batch], None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, batch: Batch, done: Callable[[Batch], None]) -> None:
        """See `Device.submit`."""
        self._jobs.put((batch, done))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch, done = job
            try:
                batch.run()
            except Exception as error:  # noqa: BLE001  the callers of this batch are told; the thread serves on
                batch.fail_all(error)
            try:
                self._loop.call_soon_threadsafe(done, batch)
            except RuntimeError:  # the loop was closed while the device was busy
                return

    async def close(self) -> None:
        """See `Device.close`; a batch that hangs is left behind after 5 s."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join, 5.0)
