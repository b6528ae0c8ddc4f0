"""Threads in which requests wait for their store.

An event loop handles every packet in the interpreter and copies it several times; a thread in `recv` waits
outside of it and copies once. So each request in flight has a thread, which is kept for the next.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    _Calls = SimpleQueue[Callable[[], None] | None]

__all__ = ("TransferThreads",)

T = TypeVar("T")


class TransferThreads:
    """Daemon threads, as many as calls overlap. Used on one loop.

    Not an executor of the standard library: the interpreter waits for the threads of those when it ends, and
    a store that stalls would hold it up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Calls] = []
        self._threads: set[threading.Thread] = set()
        self._closed = False

    async def run(
        self,
        call: Callable[[], T],
        *,
        called_off: Callable[[], None] = lambda: None,
        late: Callable[[T], None] = lambda _: None,
    ) -> T:
        """What `call` returns or raises.

        Whoever waits may be cancelled at any time: then `called_off` is to end the call, and `late` gets what
        it returns nevertheless, in any thread. So a result always has somebody who disposes of it.
        """
        outcome: Future[T] = Future()
        calls = self._thread()

        def work() -> None:
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001  whoever waits gets it
                self._park(calls)
                if outcome.set_running_or_notify_cancel():
                    outcome.set_exception(error)
                return
            self._park(calls)
            if outcome.set_running_or_notify_cancel():
                outcome.set_result(result)
            else:
                late(result)

        calls.put(work)
        try:
            return await asyncio.wrap_future(outcome)
        except asyncio.CancelledError:
            called_off()
            # It came while the waiting was cancelled.
            if not outcome.cancel() and outcome.exception() is None:
                late(outcome.result())
            raise

    async def close(self, *, within: float) -> None:
        """Let the threads end, each when its call has; wait so many seconds for that."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().put(None)
            threads = tuple(self._threads)
        if threads:
            await asyncio.to_thread(_join, threads, time.monotonic() + within)

    def _thread(self) -> _Calls:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        calls: _Calls = SimpleQueue()
        thread = threading.Thread(target=self._serve, args=(calls,), name="kosine-transfer", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()
        return calls

    def _serve(self, calls: _Calls) -> None:
        while (call := calls.get()) is not None:
            call()
        with self._lock:
            self._threads.discard(threading.current_thread())

    def _park(self, calls: _Calls) -> None:
        with self._lock:
            if self._closed:
                calls.put(None)
            else:
                self._idle.append(calls)


def _join(threads: tuple[threading.Thread, ...], deadline: float) -> None:
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
