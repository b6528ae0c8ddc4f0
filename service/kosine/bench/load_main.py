"""The load process: `python -m kosine.bench.load_main`, started by `kosine bench` and spoken to over pipes.

Single-threaded, without NumPy and with garbage collection off, so that its pauses are not taken for the
service's.
"""

from __future__ import annotations

import gc
import os
import signal
from typing import cast

import uvloop

from kosine.bench.load import run_load
from kosine.bench.load_job import Channel, Failed, Finished, Job, Target

__all__ = ("main",)

_STDIN, _STDOUT = 0, 1


def main() -> None:
    """Take one target, then jobs until the parent closes the pipe."""
    # Ctrl-C goes to everybody at the terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    # Not sys.stdout: with PYTHONUNBUFFERED it has no buffer, and drops what one write does not take.
    with open(_STDIN, "rb", closefd=False) as source, open(_STDOUT, "wb", closefd=False) as sink:
        channel: Channel[Target | Job] = Channel(source, sink, cast("type[Target | Job]", Target | Job))
        target = channel.receive()
        while isinstance(target, Target) and isinstance(job := channel.receive(), Job):
            channel.send(_run(target, job, channel))


def _run(target: Target, job: Job, channel: Channel[Target | Job]) -> Finished | Failed:
    try:
        return uvloop.run(run_load(target, job, channel.send))
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return Failed(f"cannot connect to {target.host}:{target.port}: {reason}")


if __name__ == "__main__":
    main()
