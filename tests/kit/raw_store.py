"""A store written by hand, answer by answer, for what no server of a library would send."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ("CONTENT", "Asked", "RawStore", "facts", "part", "raw_store")

CONTENT = bytes(range(256)) * 500
_RANGE = re.compile(rb"(?i)^range: bytes=(\d+)-(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Asked:
    """A look, or a range: bytes [start, stop)."""

    kind: Literal["s3", "gs"]
    head: bytes
    start: int = 0
    stop: int = 0

    @property
    def content(self) -> bytes:
        """What was asked for."""
        return CONTENT[self.start : self.stop]


def facts(asked: Asked, *, size: int | str = len(CONTENT), version: str = "1.1") -> bytes:
    """The answer to a look."""
    if asked.kind == "gs":
        body = f'{{"generation": "1", "size": "{size}"}}'
        return f"HTTP/{version} 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    modified = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT"
    return f'HTTP/{version} 200 OK\r\nETag: "1"\r\n{modified}\r\nContent-Length: {size}\r\n\r\n'.encode()


def part(
    asked: Asked,
    body: bytes | None = None,
    *,
    version: str = "1.1",
    status: str = "206 Partial Content",
    span: str | None = None,
    headers: str = "",
    length: bool = True,
) -> bytes:
    """The answer to a range: nothing but what is named differs from what it should be."""
    sent = asked.content if body is None else body
    where = f"bytes {asked.start}-{asked.stop - 1}/{len(CONTENT)}" if span is None else span
    lines = [f"HTTP/{version} {status}", 'ETag: "1"', *([f"Content-Range: {where}"] if where else [])]
    lines += [f"Content-Length: {len(sent)}"] if length else []
    return "\r\n".join([*lines, headers, ""] if headers else [*lines, "", ""]).encode() + sent


@dataclass(slots=True, eq=False)
class RawStore:
    """Answers with what `answer` yields; an empty piece ends the connection."""

    kind: Literal["s3", "gs"]
    answer: Callable[[Asked], Iterator[bytes]]
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    open: set[socket.socket] = field(default_factory=set)

    @property
    def endpoint(self) -> str:
        """Of the store."""
        return f"http://127.0.0.1:{self.port}"

    def serve(self, connection: socket.socket) -> None:
        """One connection."""
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as reader:
            while head := _head(reader):
                found = _RANGE.search(head)
                asked = Asked(self.kind, head, *((int(found[1]), int(found[2]) + 1) if found else ()))
                self.asked.append(asked)
                for piece in self.answer(asked):
                    if not piece:
                        return
                    connection.sendall(piece)


def _head(reader: BinaryIO) -> bytes:
    """Of the next request; nothing where the connection was closed."""
    lines = b""
    while not lines.endswith(b"\r\n\r\n"):
        line = reader.readline()
        if not line:
            return b""
        lines += line
    return lines


@contextlib.contextmanager
def raw_store(kind: Literal["s3", "gs"], answer: Callable[[Asked], Iterator[bytes]]) -> Iterator[RawStore]:
    """The store, on a free port."""
    store, threads = RawStore(kind, answer), list[threading.Thread]()

    def serve(connection: socket.socket) -> None:
        try:
            store.serve(connection)
        finally:
            store.open.discard(connection)

    def accept() -> None:
        while not ending.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = listening.accept()
                connection.settimeout(30)
                store.open.add(connection)
                threads.append(threading.Thread(target=serve, args=(connection,)))
                threads[-1].start()

    ending = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        store.port = listening.getsockname()[1]
        threads.append(threading.Thread(target=accept))
        threads[0].start()
        try:
            yield store
        finally:
            ending.set()
            threads[0].join()
            for thread in threads[1:]:
                thread.join()
