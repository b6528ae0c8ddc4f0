"""One engine in a process of its own: BLAS and OpenMP threads of one library slow another beside it.

Run by `engine_table`, with whatever Python has the engine. Reads a JSON object a line and answers with one,
`{"queries": B, "k": k, "calls": n}` -> `{"ms": [...], "rows": [[...]]}`; the floor's worker answers once,
with what the machine can do, and ends. Imports nothing of kosine unless it measures kosine.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Search = Callable[[NDArray[np.float32], int], tuple[Any, Any]]

_CHUNK = 65_536
_GEMM = 3072
_READ_BYTES = 512 * 2**20
_REPEATS = 5


def unit_vectors(rows: int, dim: int, *, seed: int) -> Iterator[NDArray[np.float32]]:
    """[n, dim] after [n, dim], `rows` in all, the same in every worker; only one of them is held."""
    rng = np.random.default_rng(seed)
    for start in range(0, rows, _CHUNK):
        part = rng.standard_normal((min(_CHUNK, rows - start), dim), dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
        yield part


def kosine(rows: int, dim: int, most: int) -> Search:
    """The engine of the service, warmed up."""
    structlog = importlib.import_module("structlog")
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    device = importlib.import_module("kosine.engines.device").open_device("cpu", None)
    matrix = importlib.import_module("kosine.engines.matrix").ItemMatrix.allocate(
        rows, dim, device.order("cosine", rows=rows, dim=dim)
    )
    begin = 0
    for part in unit_vectors(rows, dim, seed=0):
        for first, columns in matrix.spans(begin, begin + len(part)):
            columns[...] = part[first - begin : first - begin + columns.shape[1]].T
        begin += len(part)
    engine = device.build(matrix, metric="cosine", max_k=1000, max_rows=most)
    engine.warm_up((1, most), lambda _: None)
    search: Search = engine.search
    return search


def faiss(rows: int, dim: int, _most: int) -> Search:
    """IndexFlatIP, tuned: its BLAS for every batch, and the kernels that this CPU has."""
    library = importlib.import_module("faiss")
    library.cvar.distance_compute_blas_threshold = 1
    library.omp_set_num_threads(len(os.sched_getaffinity(0)))
    index = library.IndexFlatIP(dim)
    for part in unit_vectors(rows, dim, seed=0):
        index.add(part)

    def search(queries: NDArray[np.float32], k: int) -> tuple[Any, Any]:
        scores, rows = index.search(queries, k)
        return rows, scores

    return search


def floor() -> dict[str, float]:
    """What no engine can beat: float32 operations a second of a large GEMM, bytes read a second."""
    left, right = (np.ones((_GEMM, _GEMM), np.float32) for _ in range(2))
    gemm = min(_seconds(lambda: left @ right) for _ in range(_REPEATS))
    workers = len(os.sched_getaffinity(0))
    parts = np.array_split(np.ones(_READ_BYTES // 4, np.float32), workers)
    with ThreadPoolExecutor(workers) as pool:
        read = min(_seconds(lambda: list(pool.map(np.max, parts))) for _ in range(_REPEATS))
    return {"flops": 2 * _GEMM**3 / gemm, "bytes": _READ_BYTES / read}


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def serve(search: Search, dim: int) -> None:
    """Answer jobs until standard input ends. The first call of a job is not counted."""
    for line in sys.stdin:
        job = json.loads(line)
        queries = next(unit_vectors(job["queries"], dim, seed=1))
        rows = np.asarray(search(queries, job["k"])[0])
        taken = [1e3 * _seconds(lambda: search(queries, job["k"])) for _ in range(job["calls"])]  # noqa: B023
        _tell({"ms": taken, "rows": rows[:8].tolist()})


def _tell(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main(which: str, *sizes: str) -> None:
    """`floor`, or `kosine|faiss ROWS DIM MOST_QUERIES`."""
    if which == "floor":
        _tell(floor())
        return
    rows, dim, most = map(int, sizes)
    search = (kosine if which == "kosine" else faiss)(rows, dim, most)
    _tell({"ready": True})
    serve(search, dim)


if __name__ == "__main__":
    main(*sys.argv[1:])
