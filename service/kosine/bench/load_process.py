"""The parent's side of the load process."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from kosine.bench.load_job import Channel, Failed, Finished, Progress, Reply, Started
from kosine.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from kosine.bench.load_job import Job, Target

__all__ = ("LoadProcess",)

_STOP_SECONDS = 5


class LoadProcess:
    """A context manager: the process lives for the block."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kosine.bench.load_main"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._stdin, self._stdout = cast(
            "tuple[BinaryIO, BinaryIO]", (self._process.stdin, self._process.stdout)
        )
        self._channel: Channel[Reply] = Channel(self._stdout, self._stdin, cast("type[Reply]", Reply))
        self._channel.send(self._target)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._process.kill()
        try:
            self._process.communicate(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def run(
        self,
        job: Job,
        *,
        started: Callable[[float], None] = lambda _at: None,
        progress: Callable[[Progress], None] = lambda _so_far: None,
    ) -> Finished:
        """Run one load; blocks. `started` gets the time of the monotonic clock at which it begins.

        Raises StartupError where the service cannot be connected to.
        """
        self._channel.send(job)
        while True:
            match self._channel.receive():
                case Finished() as finished:
                    return finished
                case Started(at=at):
                    started(at)
                case Progress() as so_far:
                    progress(so_far)
                case Failed(detail=detail):
                    raise StartupError(detail)
                case None:
                    code = self._process.wait()
                    raise StartupError(f"the load process ended with exit code {code} before its load did")
