"""A store that costs next to nothing: one file as the object of every key, sent by the kernel.

Run as a process, so that what is measured does not share its interpreter: `python -m tests.kit.sendfile_store
FILE` prints its port and serves until it is ended. S3's answers to HEAD and GET with ranges, no checks.
"""

from __future__ import annotations

import contextlib
import os
import re
import socketserver
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("sendfile_store",)

_RANGE = re.compile(rb"^range: *bytes=(\d+)-(\d+)\r?$", re.IGNORECASE | re.MULTILINE)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, path: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.descriptor = os.open(path, os.O_RDONLY)
        self.size = path.stat().st_size


class _Connection(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            while head := self._head():
                self._answer(head)

    def _head(self) -> bytes:
        lines = b""
        while not lines.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return b""
            lines += line
        return lines

    def _answer(self, head: bytes) -> None:
        server = cast("_Server", self.server)
        span = _RANGE.search(head)
        start, stop = 0, server.size
        if span is not None:
            start, stop = int(span[1]), min(int(span[2]) + 1, server.size)
        lines = [
            "HTTP/1.1 206 Partial Content" if span is not None else "HTTP/1.1 200 OK",
            'ETag: "1"',
            "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT",
            f"Content-Range: bytes {start}-{stop - 1}/{server.size}",
            f"Content-Length: {stop - start}",
            "",
            "",
        ]
        self.wfile.write("\r\n".join(lines).encode())
        while head.startswith(b"GET") and start < stop:
            start += os.sendfile(self.connection.fileno(), server.descriptor, start, stop - start)


@contextlib.contextmanager
def sendfile_store(path: Path) -> Iterator[str]:
    """The endpoint of a store that serves the file at `path`."""
    command = [sys.executable, "-m", "tests.kit.sendfile_store", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


if __name__ == "__main__":
    with _Server(Path(sys.argv[1])) as running:
        sys.stdout.write(f"{running.server_address[1]}\n")
        sys.stdout.flush()
        running.serve_forever()
