"""Bodies of answers, received by threads straight from the socket into the memory that they are for.

A load is bound by the processor time that its bytes cost on the way. So they are copied once, by the kernel,
and nothing but the count of them passes through the interpreter. The timeout of the socket bounds what a
thread waits for, and calling a read off shuts the socket down.
"""

from __future__ import annotations

import contextlib
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

    from kosine.loading.storage.transfer_threads import TransferThreads

__all__ = ("Body",)


class Body:
    """The body of one answer. One read at a time; used on the loop that asked for it."""

    def __init__(self, response: BaseHTTPResponse, threads: TransferThreads, content: bytes = b"") -> None:
        self._response = response
        # Its own `readinto` makes bytes first and copies them.
        self._source: Any = response._fp  # type: ignore[attr-defined]  # noqa: SLF001
        self._threads = threads
        self._content = content
        self._begun = False
        self._reading = False

    async def read(self) -> bytes:
        """What was read of it while the answer was taken: all of a short one."""
        return self._content

    async def read_into(self, buffer: memoryview) -> int:
        """Fill `buffer`; less where the answer ends or fails, and nothing at its end."""
        self._reading = True
        return await self._threads.run(
            partial(self._fill, buffer), called_off=self._shut_down, late=lambda _: self._response.close()
        )

    def close(self) -> None:
        """Drop the connection, unless the body was read to its end: then it is used again."""
        if not self._reading:
            self._response.close()

    def _fill(self, buffer: memoryview) -> int:
        done = 0
        try:
            while done < len(buffer):
                count = self._receive(buffer[done:])
                if not count:
                    break
                done += count
        except Exception:
            if not done:
                raise
        finally:
            if done < len(buffer):
                self._response.close()
            elif self._source.isclosed():
                self._response.release_conn()
            self._reading = False
        return done

    def _receive(self, buffer: memoryview) -> int:
        """What one `recv` brings; http.client goes on until `buffer` is full, and a failure then loses it."""
        source = self._source
        if source.fp is None or source.chunked or source.length is None or source.length <= 1:
            count: int = source.readinto(buffer)
        elif not self._begun:
            self._begun = True
            count = source.readinto(buffer[: len(source.fp.peek())])  # what came with the head
        else:
            # The last byte is left to http.client, which knows what to do at the end.
            count = source.fp.readinto1(buffer[: source.length - 1])
            source.length -= count
        return count

    def _shut_down(self) -> None:
        """Wake the thread that reads and tell the store; closing is for that thread, which holds the lock."""
        sock: socket.socket | None = getattr(self._response.connection, "sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):  # it has ended by itself
                sock.shutdown(socket.SHUT_RDWR)
