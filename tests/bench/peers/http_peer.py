"""Peers that are asked over HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from kosine.bench.load_job import Target
from kosine.bench.load_process import LoadProcess
from kosine.bench.wrk import Wrk
from kosine.engines.cpus import blas_environment
from tests.bench.peers.http_asker import HttpAsker
from tests.kit.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.bench.peers.peer import Asker, Data

__all__ = ("HttpPeer", "kosine_ids", "kosine_query", "triton_ids", "triton_query")

_HOST = "127.0.0.1"


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
    wrk: Path | None = None
    """A folder for the files of wrk, which sends the load then; None: our own client does."""

    @contextmanager
    def start(self, data: Data) -> Iterator[Asker]:
        """See `Peer.start`."""
        port = self.port or free_port()
        bodies = [self.query(query.tolist(), data.k) for query in data.queries]
        target = Target(host=_HOST, port=port, requests=[self._request(body, port) for body in bodies])
        with self._program(data, port) as alive, LoadProcess(target) as load:
            asker = HttpAsker(load=load, port=port, data=data, ids=self.ids, wrk=self._wrk(bodies))
            asker.wait(alive, self.name)
            yield asker

    def _request(self, body: bytes, port: int) -> bytes:
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {_HOST}:{port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode("ascii") + body

    def _wrk(self, bodies: Sequence[bytes]) -> Wrk | None:
        installed = Wrk.find()
        if self.wrk is None or installed is None:
            return None
        folder = self.wrk / self.name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        requests = [(self.path, body) for body in bodies]
        return Wrk(installed, folder, requests=requests, order=range(len(bodies)))

    @contextmanager
    def _program(self, data: Data, port: int) -> Iterator[Callable[[], bool]]:
        if self.command is None:
            yield lambda: True
            return
        process = subprocess.Popen(
            self.command(data, port),
            # Threads of BLAS that do not spin, as kosine has them, serve its peers as well.
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **blas_environment()},
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
