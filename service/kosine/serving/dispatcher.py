"""One device, shared in turns by the batchers of every index.

Separate schedulers would fight over the same cores (TensorFlow Serving's batching guide); one engine call at
a time is also the fastest on a CPU. Batchers take turns by batch, so that a flooded index delays the others
by at most one of its batches.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kosine.serving.batch import Batch, BatchQueue
    from kosine.serving.device_thread import Device

__all__ = ("Dispatcher",)


class Dispatcher:
    """Hands the device the next batch. Create and use it on the event loop."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._loop = asyncio.get_running_loop()
        self._turns: dict[BatchQueue, None] = {}  # an ordered set
        self._running: Batch | None = None
        self._since = 0.0
        self._pumping = False
        self._closed = False

    @property
    def is_busy(self) -> bool:
        """Whether a batch is on the device."""
        return self._running is not None

    def busy_seconds(self) -> float:
        """How long the running batch has been on the device; 0 when idle."""
        return monotonic() - self._since if self._running is not None else 0.0

    def wake(self, queue: BatchQueue) -> None:
        """`queue` has rows, or a reason to flush them."""
        if self._running is None or self._running.queue is not queue:
            self._turns.setdefault(queue)
        if self._running is None and not self._pumping:
            self._pumping = True
            # Not at once: what the same turn of the loop has parsed belongs to the same batch.
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        if self._running is not None or self._closed:
            return
        for queue in tuple(self._turns):
            batch = queue.take()
            if batch is not None or not queue.queued_rows:
                del self._turns[queue]
            if batch is not None:
                self._running = batch
                self._since = monotonic()
                self._device.submit(batch, self._done)
                return

    def _done(self, batch: Batch) -> None:
        self._running = None
        batch.queue.deliver(batch)
        if batch.queue.queued_rows:
            self._turns[batch.queue] = None  # behind whoever came meanwhile
        self._pump()

    async def close(self) -> None:
        """Start nothing more and stop the device."""
        self._closed = True
        await self._device.close()
