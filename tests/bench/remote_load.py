"""How long a load from an object store takes, against s3fs reading the same object and doing nothing with it.

    python -m tests.bench.remote_load [--mib 512] [--rounds 7]

Each run is a process of its own, the two take turns, and medians are compared, so that what else the machine
does hits both. A load reads, hashes, decodes, checks, normalises and transposes; `s3fs` is one
`open().read()`. `growth` is the peak of resident memory beyond what the process had before, as a share of
the matrix. `stages` are the least processor times of what a load cannot do without, each by itself: no load
is faster than their sum shared by all cores.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import json
import mmap
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.kit.sendfile_store import sendfile_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kosine.loading.storage.stores import Stores

_DIM = 128
_KINDS = ("kosine", "s3fs")
_URI = "s3://vectors/items.npy"
_TOUCHED_BYTES = 3 * 2**29


def main() -> None:
    """Print a line for each kind, and the ratio."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--mib", type=int, default=512)
    options.add_argument("--rounds", type=int, default=7)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "items.npy"
        rows = chosen.mib * 2**20 // (4 * _DIM)
        np.save(path, np.random.default_rng(1).standard_normal((rows, _DIM), dtype=np.float32))
        with sendfile_store(path) as endpoint:
            runs = [{kind: _run(kind, endpoint) for kind in _KINDS} for _ in range(chosen.rounds)]
            least = _run("stages", endpoint)
    median = {
        kind: {figure: statistics.median(run[kind][figure] for run in runs) for figure in runs[0][kind]}
        for kind in _KINDS
    }
    print("stages", *(f"{name} {value:.3f}" for name, value in least.items()))  # noqa: T201
    for kind in _KINDS:
        print(kind, *(f"{name} {value:.3f}" for name, value in median[kind].items()))  # noqa: T201
    print(f"s3fs / kosine: {median['s3fs']['seconds'] / median['kosine']['seconds']:.2f}")  # noqa: T201


def _run(kind: str, endpoint: str) -> dict[str, float]:
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    command = [sys.executable, "-m", "tests.bench.remote_load", kind, endpoint]
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(ended.stdout)
    return found


def _measured(kind: str, endpoint: str) -> dict[str, float]:
    """The second run in this process: the first pays for clients and connections."""
    with _kosine(endpoint) if kind == "kosine" else _s3fs(endpoint) as read:
        read()
        gc.collect()
        _touch_memory()
        before, cpu, began = _resident(), time.process_time(), time.perf_counter()
        with _peak() as peak:
            size = read()
        return {
            "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - cpu,
            "growth": (peak() - before) / size,
        }


def _touch_memory() -> None:
    """Have the host give this machine memory: a virtual one may have handed back what nobody used."""
    memory = mmap.mmap(-1, _TOUCHED_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    np.frombuffer(memory, dtype=np.uint8)[:: mmap.PAGESIZE] = 1


def _stages(endpoint: str) -> dict[str, float]:
    from kosine.loading.artifact import read_matrix
    from kosine.loading.layout import plan_matrix
    from kosine.npy.header import read_header

    with (
        contextlib.closing(_stores(endpoint)) as stores,
        stores.open(_URI, stores.fingerprint(_URI)) as reader,
    ):
        content = memoryview(bytearray(reader.size))
        reader.read_into(0, content)
    memory = _InMemory(content)
    plan = plan_matrix(read_header(memory), layout="rows", dim=None)
    hashing = _least(lambda: hashlib.sha256(content))
    decoding = _least(lambda: read_matrix(memory, plan, metric="cosine")) - hashing
    return {"receive": _least(lambda: _receive(endpoint)), "hash": hashing, "decode": decoding}


def _least(run: Callable[[], object]) -> float:
    """Processor seconds of the best of five."""
    taken = []
    for _ in range(5):
        began = time.process_time()
        run()
        taken.append(time.process_time() - began)
    return min(taken)


def _receive(endpoint: str) -> None:
    """By the system call, into memory that is used again and again."""
    buffer = memoryview(bytearray(2**19))
    with socket.create_connection(("127.0.0.1", int(endpoint.rpartition(":")[2]))) as sock:
        sock.sendall(b"GET /vectors/items.npy HTTP/1.1\r\nHost: store\r\n\r\n")
        left = int(re.findall(rb"Content-Length: (\d+)", sock.recv(2**16, socket.MSG_PEEK))[0])
        while left > 0:
            left -= sock.recv_into(buffer)


class _InMemory:
    """Implements `Reader`."""

    buffer_bytes = 0

    def __init__(self, content: memoryview) -> None:
        self.size = len(content)
        self._content = content

    def read_into(self, offset: int, buffer: memoryview) -> None:
        view = buffer.cast("B")
        view[:] = self._content[offset : offset + len(view)]

    def lend(self, offset: int, size: int) -> memoryview:
        return self._content[offset : offset + size]

    def verify(self) -> None:
        pass


@contextlib.contextmanager
def _kosine(endpoint: str) -> Iterator[Callable[[], int]]:
    from kosine.loading.artifact import read_matrix
    from kosine.loading.layout import plan_matrix
    from kosine.npy.header import read_header

    def load() -> int:
        with stores.open(_URI, stores.fingerprint(_URI)) as reader:
            plan = plan_matrix(read_header(reader), layout="rows", dim=None)
            artifact = read_matrix(reader, plan, metric="cosine")
            reader.verify()
        return artifact.matrix.nbytes

    with contextlib.closing(_stores(endpoint)) as stores:
        yield load


def _stores(endpoint: str) -> Stores:
    from kosine.loading.storage.stores import Stores
    from kosine.settings import S3Settings, StoresSettings
    from kosine.source_uri import COMMAND_LINE

    settings = StoresSettings(s3=S3Settings(endpoint_url=endpoint, region="us-east-1"))
    return Stores(settings, policy=COMMAND_LINE)


@contextlib.contextmanager
def _s3fs(endpoint: str) -> Iterator[Callable[[], int]]:
    import s3fs

    system = s3fs.S3FileSystem(endpoint_url=endpoint)

    def read() -> int:
        with system.open("vectors/items.npy") as file:
            return len(file.read())

    yield read


@contextlib.contextmanager
def _peak() -> Iterator[Callable[[], int]]:
    """Most resident memory while in the block, in bytes: VmHWM, set back at its beginning."""
    Path("/proc/self/clear_refs").write_text("5", "ascii")
    yield lambda: int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text("ascii"))[0]) * 1024


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    if sys.argv[1:2] == ["stages"]:
        sys.stdout.write(json.dumps(_stages(sys.argv[2])))
    elif sys.argv[1:2] and sys.argv[1] in _KINDS:
        sys.stdout.write(json.dumps(_measured(*sys.argv[1:3])))
    else:
        main()
