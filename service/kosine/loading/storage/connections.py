"""Every connection of a client, so that a client that is closed, or a request that is given up, leaves none.

A pool closes what lies in it; a connection on which a thread waits for its store is not there. These are
shut down, which wakes their threads at once, however long the store would have kept them.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from urllib3 import HTTPConnectionPool

    from kosine.loading.storage.transfer_threads import TransferThreads

__all__ = ("Connections", "Waiting")

_CLOSED_WITHIN = 6.0
"""Longer than making a connection may take."""


class Waiting:
    """One request that a thread sends and waits for. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None

    def on(self, sock: socket.socket | None) -> None:
        """It waits on `sock`; None: not any more."""
        with self._lock:
            self._sock = sock

    def call_off(self) -> None:
        """Wake the thread, and tell the store."""
        with self._lock:
            if self._sock is not None:
                _shut_down(self._sock)


class Connections:
    """Knows the sockets that pools of its making have opened. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_thread = threading.local()
        self._open: WeakSet[socket.socket] = WeakSet()
        self._closed = False

    def pool_classes(self, *kinds: type[HTTPConnectionPool]) -> dict[str, type[HTTPConnectionPool]]:
        """By scheme, pools like `kinds` whose connections are known here."""
        return {str(kind.scheme): _noticed(kind, self) for kind in kinds}

    def opened(self, sock: socket.socket) -> None:
        """Take notice of `sock`; ConnectionAbortedError where the client is closed by now."""
        with self._lock:
            if not self._closed:
                self._open.add(sock)
                return
        sock.close()
        raise ConnectionAbortedError(errno.ECONNABORTED, "the client was closed")

    async def close(self, threads: TransferThreads) -> None:
        """End all of them, those that are still to come, and `threads`, which use and close them."""
        with self._lock:
            self._closed = True
            for sock in self._open:
                _shut_down(sock)
        await threads.close(within=_CLOSED_WITHIN)

    @contextlib.contextmanager
    def waited_on_by(self, waiting: Waiting) -> Iterator[None]:
        """The requests of this thread, in the block, are `waiting`."""
        self._of_thread.waiting = waiting
        try:
            yield
        finally:
            self._of_thread.waiting = None
            waiting.on(None)

    def waits(self, sock: socket.socket) -> None:
        """This thread waits for an answer on `sock`."""
        waiting: Waiting | None = getattr(self._of_thread, "waiting", None)
        if waiting is not None:
            waiting.on(sock)


def _shut_down(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended by itself
        sock.shutdown(socket.SHUT_RDWR)


def _noticed(kind: type[HTTPConnectionPool], connections: Connections) -> type[HTTPConnectionPool]:
    class Connection(kind.ConnectionCls):  # type: ignore[misc,name-defined]
        def connect(self) -> None:
            super().connect()
            connections.opened(self.sock)

        def getresponse(self) -> Any:
            connections.waits(self.sock)
            return super().getresponse()

    class Pool(kind):  # type: ignore[misc,valid-type]
        ConnectionCls: Any = Connection

    return Pool
