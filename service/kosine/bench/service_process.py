"""A service of the bench's own: `kosine serve` as a user would start it, on a free loopback port."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import msgspec

from kosine.bench.endpoint import Endpoint
from kosine.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

__all__ = ("ServiceProcess",)

_START_SECONDS = 180.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.05
_KEPT_LINES = 200


class ServiceProcess:
    """A context manager: starts when the block begins, is asked to stop when it ends."""

    def __init__(self, files: Mapping[str, Path], *, edits: Sequence[str]) -> None:
        """`edits` are settings, as `kosine serve --set` takes them."""
        options = [f"--index={name}={path}" for name, path in files.items()]
        self._command = [
            *(sys.executable, "-m", "kosine", "serve", "--port=0", "--log-format=json"),
            *options,
            *(f"--set={edit}" for edit in edits),
        ]
        self._log: list[str] = []
        self._url: str | None = None
        self._load_failed = False
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        with _signals_held() as held:
            self._process = subprocess.Popen(  # noqa: S603  this interpreter, our own command
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            self._reader = threading.Thread(target=self._read, name="kosine-bench-log", daemon=True)
            self._reader.start()
        try:
            for number in held:
                signal.raise_signal(number)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        if self._process.stderr is not None:
            self._process.stderr.close()

    @property
    def pid(self) -> int:
        """Of the service."""
        return self._process.pid

    def wait_ready(self) -> Endpoint:
        """Blocks until every index is served. Raises StartupError, with the log, where that does not come."""
        deadline = time.monotonic() + _START_SECONDS
        with self._changed:
            self._changed.wait_for(lambda: self._url is not None or self._gone(), _START_SECONDS)
        if self._url is None:
            raise self._failure("did not start")
        endpoint = Endpoint.parse(self._url)
        while not endpoint.ready():
            if self._gone() or self._load_failed or time.monotonic() > deadline:
                raise self._failure("did not become ready")
            time.sleep(_POLL_SECONDS)
        return endpoint

    def _gone(self) -> bool:
        return not self._reader.is_alive() or self._process.poll() is not None

    def _read(self) -> None:
        stream = self._process.stderr
        for line in stream or ():
            entry = _parsed(line)
            with self._changed:
                self._log.append(line.decode("utf-8", "replace").rstrip())
                del self._log[:-_KEPT_LINES]
                if entry.get("event") == "serving":
                    self._url = entry.get("url")
                self._load_failed |= entry.get("event") == "reload_failed"
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _failure(self, what: str) -> StartupError:
        with self._changed:
            said = [line for line in self._log if _parsed(line.encode()).get("level") != "info"]
        tail = "\n".join(said[-5:]) or "it said nothing"
        return StartupError(f"the service {what}; the last it said:\n{tail}")


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        entry = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return {}
    return entry if isinstance(entry, dict) else {}


@contextmanager
def _signals_held() -> Iterator[list[int]]:
    """What would stop this process meanwhile is listed instead: nobody would know of a service just started.

    Handlers and not a mask, which a new process would inherit.
    """
    held: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    before = {
        number: signal.signal(number, lambda number, _: held.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield held
    finally:
        for number, handler in before.items():
            if handler is not None:  # else it is no handler of Python's
                signal.signal(number, handler)
