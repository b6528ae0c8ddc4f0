"""An event loop in a thread of its own, where all requests to stores live.

Loader threads block on it, so a slow store never touches the loop that answers queries. The thread starts
with the first request: a service of local files has none.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import uvloop

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Future

__all__ = ("Closed", "IoThread")

T = TypeVar("T")


class Closed(Exception):
    """The service is stopping."""


class IoThread:
    """Thread-safe. Not to be used in a forked child."""

    def __init__(self, name: str = "kosine-storage") -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run `work` on the loop; the future cancels it. Raises Closed."""
        with self._lock:
            if self._closed:
                work.close()
                raise Closed
            if self._loop is None:
                self._loop = uvloop.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True)
                self._thread.start()
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for `work`."""
        return self.start(work).result()

    def close(self, last: Coroutine[Any, Any, None], *, within: float = 8.0) -> None:
        """Cancel what runs, run `last`, and end the thread; after `within` seconds leave it behind."""
        with self._lock:
            self._closed, loop, thread = True, self._loop, self._thread
        if loop is None or thread is None or not thread.is_alive():
            last.close()
            return
        asyncio.run_coroutine_threadsafe(_end(loop, last), loop)
        thread.join(within)
        if not thread.is_alive():
            loop.close()


async def _end(loop: asyncio.AbstractEventLoop, last: Coroutine[Any, Any, None]) -> None:
    running = asyncio.all_tasks() - {asyncio.current_task()}
    for task in running:
        task.cancel()
    try:
        await asyncio.gather(*running, return_exceptions=True)
        await last
        await loop.shutdown_asyncgens()
        await loop.shutdown_default_executor()
    finally:
        loop.stop()
