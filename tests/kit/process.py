"""`kosine serve` as its users run it: a process, a port, signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

__all__ = ("ServiceProcess", "eventually", "kosine_serve")

STARTUP_SECONDS = 60.0


def eventually(condition: Callable[[], bool], *, within: float, what: str) -> None:
    """Poll a condition of another process; AssertionError naming `what` when it does not come true."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within:.0f} s: {what}"
        time.sleep(0.02)


@dataclass(slots=True, eq=False)
class ServiceProcess:
    """A running service and its log."""

    process: subprocess.Popen[bytes]
    url: str = ""
    log: list[dict[str, Any]] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)
    """Lines on standard error that are not JSON; there should be none."""

    def read(self) -> None:
        """Collect log lines until the process ends; runs in a thread."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.log.append(json.loads(line))
            except ValueError:
                self.raw.append(line.decode(errors="replace"))

    def event(self, name: str) -> dict[str, Any] | None:
        """The first log line of that event."""
        return next((entry for entry in list(self.log) if entry.get("event") == name), None)

    def ready(self) -> bool:
        """What a readiness probe sees."""
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def wait_ready(self, within: float = STARTUP_SECONDS) -> None:
        """Until every required index has a version."""
        eventually(self.ready, within=within, what="ready")

    def stop(self, *signals: signal.Signals) -> int:
        """Send the signals (SIGTERM), wait, and return the exit code."""
        for number in signals or (signal.SIGTERM,):
            self.process.send_signal(number)
        return self.process.wait(timeout=30)


@contextmanager
def kosine_serve(*arguments: str | Path, cwd: Path | None = None) -> Iterator[ServiceProcess]:
    """Start `kosine serve` on a free loopback port; it listens when the block begins and is gone after it."""
    command: Sequence[str] = (
        sys.executable,
        "-m",
        "kosine",
        "serve",
        "--log-format",
        "json",
        "--port",
        "0",
        *map(str, arguments),
    )
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=cwd)
    service = ServiceProcess(process)
    reader = threading.Thread(target=service.read, name="log-reader")
    reader.start()
    try:
        eventually(
            lambda: service.event("serving") is not None or process.poll() is not None,
            within=STARTUP_SECONDS,
            what="listening",
        )
        serving = service.event("serving")
        assert serving is not None, f"exit {process.returncode}: {service.log} {service.raw}"
        service.url = serving["url"]
        yield service
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        assert process.stderr is not None
        process.stderr.close()
