"""What HTTP and batching cost a query: `python -m tests.bench.request_cost`; needs wrk (Debian: wrk).

The service with an engine that does nothing, beside the least that any ASGI application does: read the body,
decode it by msgspec, encode as long an answer. Both under uvicorn, each in a process of its own on one core,
asked in turn by wrk on the other. Printed are microseconds of processor time a request, of the whole process,
the kernel's share of its sockets included: medians over the rounds, and the median of their ratios.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click
import httpx
import msgspec
import numpy as np
import psutil

from kosine.bench.wrk import Wrk
from tests.kit.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kosine.http.asgi import Receive, Scope, Send

__all__ = ("bare",)

_PATH = "/indexes/items/cos"
_QUERIES = 500
_WITHIN = 60.0


class _Query(msgspec.Struct):
    embedding: list[float]
    k: int = 10


_DECODE = msgspec.json.Decoder(_Query).decode
_ANSWER = {"result": [(33609 + rank, 0.878005 - 0.001 * rank) for rank in range(10)]}


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """The least: no check, no queue, no limit, no metric."""
    assert scope["type"] == "http"
    message = await receive()
    _DECODE(message["body"])
    body = msgspec.json.encode(_ANSWER)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _commands(file: Path) -> Mapping[str, Sequence[str]]:
    """By name, what is to be started; the port comes last."""
    python = sys.executable
    ours = [python, "-m", "tests.bench.peers.same_application", "null", str(file)]
    uvicorn = [python, "-m", "uvicorn", "tests.bench.request_cost:bare", "--no-access-log", "--lifespan=off"]
    return {"kosine": ours, "bare": [*uvicorn, "--loop=uvloop", "--http=httptools", "--port"]}


@contextmanager
def _server(command: Sequence[str], port: int) -> Iterator[psutil.Process]:
    process = subprocess.Popen(
        [*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ
    )
    try:
        _wait(process, port)
        yield _pinned(psutil.Process(process.pid), 0)
    finally:
        process.terminate()
        process.wait(30)


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    query = {"embedding": [0.5] * 100}
    deadline = time.monotonic() + _WITHIN
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
        try:
            if httpx.post(f"http://127.0.0.1:{port}{_PATH}", json=query).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"{process.args!r} does not answer within {_WITHIN:g} s")


def _pinned(process: psutil.Process, core: int) -> psutil.Process:
    """All its threads on that core, so that their hand-overs cost what they cost on one."""
    for thread in process.threads():
        os.sched_setaffinity(thread.id, {core})
    return process


def _cost(process: psutil.Process, wrk: Wrk, port: int, *, connections: int, seconds: float) -> float:
    """Microseconds a request."""
    before = process.cpu_times()
    result = wrk.run(
        f"http://127.0.0.1:{port}",
        connections=connections,
        seconds=seconds,
        timeout=10.0,
        started=lambda _: None,
    )
    after = process.cpu_times()
    assert not result.failures, f"{process.cmdline()} failed: {result.failures}"
    used = after.user + after.system - before.user - before.system
    return used / result.answered * 1e6


@click.command(help=__doc__)
@click.option("--dim", default=100, show_default=True)
@click.option("-c", "connections", default=64, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=3.0, show_default=True, help="Of one window.")
def main(dim: int, connections: int, rounds: int, seconds: float) -> None:
    """See above."""
    installed = Wrk.find()
    if installed is None:
        raise click.UsageError("wrk is not installed (Debian: apt-get install wrk)")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((_QUERIES, dim)).round(8)
    requests = [(_PATH, msgspec.json.encode({"embedding": query.tolist()})) for query in queries]
    costs: dict[str, list[float]] = {}
    with TemporaryDirectory(prefix="kosine-cost-") as name, ExitStack() as running:
        file = Path(name) / "items.npy"
        np.save(file, rng.standard_normal((1000, dim)).astype(np.float32))
        wrk = Wrk(installed, Path(name), requests=requests, order=range(_QUERIES))
        ports = {peer: free_port() for peer in ("kosine", "bare")}
        servers = {
            peer: running.enter_context(_server(command, ports[peer]))
            for peer, command in _commands(file).items()
        }
        for _ in range(rounds):
            for peer, process in servers.items():
                cost = _cost(process, wrk, ports[peer], connections=connections, seconds=seconds)
                costs.setdefault(peer, []).append(cost)
                click.echo(f"{peer}: {cost:.1f} us a request", err=True)
    ratio = median(ours / bare for ours, bare in zip(costs["kosine"], costs["bare"], strict=True))
    ours, least = median(costs["kosine"]), median(costs["bare"])
    click.echo(f"d={dim} c={connections}: kosine {ours:.1f} us, bare {least:.1f} us, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
