"""Runs a page as its reader would: each block in order, each answer compared, Ctrl-C where it says so.

`bash` blocks run in one folder; one that ends in `kosine serve` stays in the background on a free port. A
`json` or `text` block is the output of the block before it, with `...` for what may be anything; where that
block only asks, it is asked until the answer fits.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kit.process import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("Reader", "Step", "matches", "steps_of")

ANSWER_SECONDS = 30.0
TOUR_FOLDER = "/tmp/kosine-tour"  # noqa: S108  what the page says; the reader works in a folder of its own
_STEP = re.compile(
    r"^```(?P<language>\w+)\n(?P<code>.*?)^```$|(?P<interrupt>Ctrl-C)", re.DOTALL | re.MULTILINE
)
_URL = re.compile(r'"url":"http://127\.0\.0\.1:(\d+)"')


@dataclass(frozen=True, slots=True)
class Step:
    """A block, or `interrupt` where the prose presses Ctrl-C."""

    kind: str
    code: str
    line: int


def steps_of(text: str, *, heading: str) -> list[Step]:
    """What the section under `heading` asks its reader to do."""
    start = text.index(heading)
    end = text.find("\n## ", start + len(heading))
    section = text[start : end if end > 0 else None]
    first_line = text.count("\n", 0, start) + 1
    return [
        Step(
            found["language"] or "interrupt",
            found["code"] or "",
            first_line + section.count("\n", 0, found.start()),
        )
        for found in _STEP.finditer(section)
    ]


def matches(expected: str, actual: str) -> bool:
    """Whether `actual` is `expected` with something for each `...`."""
    parts = [re.escape(part) for part in expected.strip().split("...")]
    return re.fullmatch(".*?".join(parts), actual.strip(), re.DOTALL) is not None


@dataclass(slots=True)
class Reader:
    """Somebody with a shell, a folder and a service in another terminal."""

    folder: Path
    executables: Path = field(default_factory=lambda: Path(sys.executable).parent)
    _service: subprocess.Popen[bytes] | None = None
    _log: Path | None = None
    _port: str = "8080"

    @classmethod
    @contextmanager
    def at(cls, folder: Path) -> Iterator[Reader]:
        """A reader whose service is gone afterwards, whatever happens."""
        reader = cls(folder)
        try:
            yield reader
        finally:
            if reader._service is not None and reader._service.poll() is None:
                reader._service.kill()
                reader._service.wait()

    def follow(self, steps: list[Step]) -> None:
        """Do every step; AssertionError names the line that did not hold."""
        before: Step | None = None
        output = ""
        for step in steps:
            match step.kind:
                case "interrupt":
                    self._interrupt(step)
                case "python":
                    self._run([sys.executable, "-c", step.code], step)
                case "bash":
                    output = self._bash(step)
                    before = step
                case _:
                    assert before is not None, f"line {step.line}: output of nothing"
                    self._compare(step, before, output)

    def _bash(self, step: Step) -> str:
        lines = [self._adapted(line) for line in step.code.splitlines() if not line.startswith(". .venv")]
        serving = bool(lines) and lines[-1].startswith("kosine serve")
        foreground = lines[:-1] if serving else lines
        output = (
            self._run(["bash", "-euo", "pipefail", "-c", "\n".join(foreground)], step) if foreground else ""
        )
        if serving:
            self._serve(lines[-1])
        return output

    def _adapted(self, line: str) -> str:
        here = line.replace(TOUR_FOLDER, str(self.folder))
        return here.replace("localhost:8080", f"127.0.0.1:{self._port}")

    def _run(self, command: list[str], step: Step) -> str:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self._environment(),
            timeout=ANSWER_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"line {step.line}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{self.executables}:{os.environ['PATH']}",
            "NO_PROXY": "*",
            "no_proxy": "*",
        }

    def _serve(self, line: str) -> None:
        assert self._service is None, f"a service is already running: {line}"
        handle, name = tempfile.mkstemp(dir=self.folder, suffix=".log")
        self._log = Path(name)
        command = [*line.split(), "--port", "0", "--log-format", "json"]
        self._service = subprocess.Popen(command, cwd=self.folder, env=self._environment(), stderr=handle)
        os.close(handle)
        # A small file may be loaded before the socket listens: either line may be the first.
        eventually(
            lambda: '"reload_published"' in self._said() and _URL.search(self._said()) is not None,
            within=60,
            what=f"published and listening: {line}",
        )
        found = _URL.search(self._said())
        assert found is not None
        self._port = found[1]

    def _interrupt(self, step: Step) -> None:
        assert self._service is not None, f"line {step.line}: nothing to interrupt"
        self._service.send_signal(signal.SIGINT)
        assert self._service.wait(timeout=ANSWER_SECONDS) == 0, f"line {step.line}: {self._said()}"
        self._service = None

    def _said(self) -> str:
        return self._log.read_text(encoding="utf-8") if self._log is not None else ""

    def _compare(self, step: Step, before: Step, output: str) -> None:
        """Ask until the answer fits: a person takes longer to read than a file takes to be loaded."""
        only_asks = all(line.startswith("curl -s localhost") for line in before.code.splitlines())
        deadline = time.monotonic() + ANSWER_SECONDS
        while not matches(step.code, output):
            assert only_asks, f"line {step.line}: expected\n{step.code}got\n{output}"
            assert time.monotonic() < deadline, (
                f"line {step.line}: expected\n{step.code}got\n{output}\n{self._said()}"
            )
            time.sleep(0.05)
            output = self._bash(before)
