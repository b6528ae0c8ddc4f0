"""Peers that are asked over HTTP, by the same load process that `kosine bench` uses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from kosine.bench.load_job import NO_ANSWER, Finished, Job, Target
from kosine.bench.load_process import LoadProcess
from kosine.bench.percentiles import percentiles
from tests.bench.peers.peer import Window
from tests.kit.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.bench.peers.peer import Asker, Data

__all__ = ("HttpPeer", "kosine_ids", "kosine_query", "triton_ids", "triton_query")

_HOST = "127.0.0.1"
_START_SECONDS = 300.0
_TIMEOUT = 30.0
_ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "3", "OPENBLAS_THREAD_TIMEOUT": "4"}
"""Threads of BLAS that do not spin, as kosine has them, serve its peers as well."""


def kosine_query(embedding: Sequence[float], k: int) -> bytes:
    """The body of kosine and of whoever speaks as it does."""
    return msgspec.json.encode({"embedding": embedding, "k": k})


def kosine_ids(body: bytes) -> list[int]:
    """Row numbers, best first."""
    result: list[tuple[int, float]] = msgspec.json.decode(body)["result"]
    return [int(row) for row, _ in result]


def triton_query(embedding: Sequence[float], k: int) -> bytes:
    """The open inference protocol; k is the model's."""
    del k
    tensor = {"name": "embedding", "shape": [1, len(embedding)], "datatype": "FP32", "data": embedding}
    return msgspec.json.encode({"inputs": [tensor]})


def triton_ids(body: bytes) -> list[int]:
    """The output `rows`."""
    outputs = {output["name"]: output["data"] for output in msgspec.json.decode(body)["outputs"]}
    return [int(row) for row in outputs["rows"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpPeer:
    """Implements `Peer`: a program that listens, or a server that runs already at `port`."""

    name: str
    command: Callable[[Data, int], Sequence[str]] | None = None
    port: int | None = None
    path: str = "/indexes/items/cos"
    query: Callable[[Sequence[float], int], bytes] = kosine_query
    ids: Callable[[bytes], list[int]] = kosine_ids

    @contextmanager
    def start(self, data: Data) -> Iterator[Asker]:
        """See `Peer.start`."""
        port = self.port or free_port()
        target = Target(
            host=_HOST, port=port, requests=[self._request(q, data.k, port) for q in data.queries]
        )
        with self._program(data, port) as alive, LoadProcess(target) as load:
            asker = _Asker(load, port, data, self.ids)
            asker.wait(alive, self.name)
            yield asker

    def _request(self, query: np.ndarray[tuple[int], np.dtype[np.float64]], k: int, port: int) -> bytes:
        body = self.query(query.tolist(), k)
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {_HOST}:{port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode("ascii") + body

    @contextmanager
    def _program(self, data: Data, port: int) -> Iterator[Callable[[], bool]]:
        if self.command is None:
            yield lambda: True
            return
        process = subprocess.Popen(
            self.command(data, port),
            env={**os.environ, **_ENVIRONMENT},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield lambda: process.poll() is None
        finally:
            # Servers of several processes do not all pass a signal on.
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@dataclass(frozen=True, slots=True)
class _Asker:
    """Implements `Asker`."""

    load: LoadProcess
    port: int
    data: Data
    ids: Callable[[bytes], list[int]]

    def ask(self, *, connections: int, seconds: float) -> Window:
        """See `Asker.ask`."""
        order = np.arange(len(self.data.queries), dtype=np.uint32).tobytes()
        return self._judged(
            self.load.run(Job(connections=connections, seconds=seconds, timeout=_TIMEOUT, order=order)),
            seconds,
        )

    def wait(self, alive: Callable[[], bool], name: str) -> None:
        """Until one query is answered."""
        deadline = time.monotonic() + _START_SECONDS
        job = Job(connections=1, seconds=1.0, timeout=10.0, order=np.uint32(0).tobytes(), limit=1)
        while True:
            assert alive(), f"{name} ended before it answered"
            assert time.monotonic() < deadline, f"{name} does not answer"
            if _listens(self.port):
                outcomes = self.load.run(job).outcomes
                if len(outcomes) == 1:
                    return
                assert not outcomes[1].startswith("4"), f"{name} refuses a query: {outcomes[1]}"
            time.sleep(0.2)

    def _judged(self, finished: Finished, seconds: float) -> Window:
        answer = np.frombuffer(finished.answer, np.uint32)
        good = answer != NO_ANSWER
        taken = np.frombuffer(finished.done) - np.frombuffer(finished.sent)
        found = percentiles(taken[good])
        hits = [
            len(set(self.ids(body)) & set(self.data.exact[query].tolist()))
            for query, body in finished.answers
        ]
        return Window(
            throughput=int(good.sum()) / seconds,
            p50=found.p50 if found else float("nan"),
            p99=found.p99 if found else float("nan"),
            recall=sum(hits) / (len(hits) * self.data.k) if hits else float("nan"),
            failed=int((~good).sum()),
        )


def _listens(port: int) -> bool:
    try:
        socket.create_connection((_HOST, port), timeout=1).close()
    except OSError:
        return False
    return True
