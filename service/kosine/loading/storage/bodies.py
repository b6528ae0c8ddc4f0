"""Bodies of answers, received by threads straight from the socket.

A load is bound by the processor that its bytes cost on the way. An event loop handles every packet in the
interpreter and copies it several times; a thread in `recv` waits outside of it and copies once. So content
comes this way, by urllib3, which botocore uses by itself: pools, TLS and proxies are its own. The timeout of
its socket bounds what a thread waits for, and calling it off shuts the socket down.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import deque
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from urllib3 import BaseHTTPResponse

    _Calls = SimpleQueue[Callable[[], None] | None]

__all__ = ("Body", "TransferThreads")

T = TypeVar("T")

_RECEIVE_BYTES = 2**18
"""Of one `recv`: what a socket holds, not more, because each thread has one at hand."""


class TransferThreads:
    """Daemon threads that are kept for the next call; as many as calls overlap. Used on one loop.

    Not an executor of the standard library: the interpreter waits for the threads of those when it ends, and
    a store that stalls would hold it up.
    """

    def __init__(self) -> None:
        self._idle: deque[_Calls] = deque()
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
        it still returns.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        worker = self._idle.pop() if self._idle else _started()

        def settle(result: T | None, error: Exception | None) -> None:
            self._idle.append(worker)
            if self._closed:
                self.close()
            if error is not None:
                if not future.done():
                    future.set_exception(error)
            elif future.done():
                late(cast("T", result))
            else:
                future.set_result(cast("T", result))

        def work() -> None:
            result, failure = None, None
            try:
                result = call()
            except Exception as error:  # noqa: BLE001  whoever waits gets it
                failure = error
            try:
                loop.call_soon_threadsafe(settle, result, failure)
            except RuntimeError:  # the loop was closed meanwhile
                worker.put(None)

        worker.put(work)
        try:
            return await future
        except asyncio.CancelledError:
            called_off()
            raise

    def close(self) -> None:
        """Let the threads end, each when its call has."""
        self._closed = True
        while self._idle:
            self._idle.pop().put(None)


def _started() -> _Calls:
    calls: _Calls = SimpleQueue()

    def work() -> None:
        while (call := calls.get()) is not None:
            call()

    threading.Thread(target=work, name="kosine-transfer", daemon=True).start()
    return calls


class Body:
    """The body of one answer. One read at a time; used on the loop that asked for it."""

    def __init__(self, response: BaseHTTPResponse, threads: TransferThreads, content: bytes = b"") -> None:
        self._response = response
        self._threads = threads
        self._content = content
        self._reading = False

    async def read(self) -> bytes:
        """What was read of it while the answer was taken: all of a short one."""
        return self._content

    async def read_into(self, buffer: memoryview) -> int:
        """Fill `buffer`; less where the answer ends or fails, and nothing at its end."""
        self._reading = True
        return await self._threads.run(partial(self._fill, buffer), called_off=self._shut_down)

    def close(self) -> None:
        """Drop the connection, unless the body was read to its end: then it is used again."""
        if not self._reading:
            self._response.close()

    def _fill(self, buffer: memoryview) -> int:
        done = 0
        try:
            while done < len(buffer):
                piece = self._response.read1(min(_RECEIVE_BYTES, len(buffer) - done))
                if not piece:
                    break
                buffer[done : done + len(piece)] = piece
                done += len(piece)
        except Exception:
            if not done:
                raise
        finally:
            if done < len(buffer):
                self._response.close()
            self._reading = False
        return done

    def _shut_down(self) -> None:
        """Wake the thread that reads and tell the store; closing is for that thread, which holds the lock."""
        sock: socket.socket | None = getattr(self._response.connection, "sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                sock.shutdown(socket.SHUT_RDWR)
