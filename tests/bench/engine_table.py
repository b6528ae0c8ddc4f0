"""The engine against tuned faiss and against what the machine can do, shape by shape.

    python -m tests.bench.engine_table                                   # a few shapes, a minute
    python -m tests.bench.engine_table --rows 1000000 --dim 768 --batch 128
    python -m tests.bench.engine_table --peer-python VENV/bin/python     # a Python that has faiss-cpu

Every engine has a process of its own and they take turns, so that what else the machine does hits all alike.
Figures are milliseconds of one call, medians. `floor` is the longer of two times: that of the product at the
speed of a large GEMM, and that of reading the matrix once. Recall is kosine's against faiss's rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Self

import click
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WORKER = Path(__file__).with_name("engine_worker.py")
ROUNDS = 5
_WIDTH = 100
"""Of the table, also where it is written to a file."""


class Worker:
    """One engine over one matrix; a context manager."""

    def __init__(self, python: str, engine: str, *sizes: int) -> None:
        self._process = subprocess.Popen(
            [python, str(WORKER), engine, *map(str, sizes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(python),
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def hear(self) -> dict[str, Any]:
        """The next line it tells. ClickException where it has died, as standard error tells."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise click.ClickException(f"a worker ended with exit code {self._process.wait()}, see above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def measure(self, *, queries: int, k: int, calls: int) -> dict[str, Any]:
        """Milliseconds of `calls` calls, and the rows found for the first queries."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"queries": queries, "k": k, "calls": calls}) + "\n")
        self._process.stdin.flush()
        return self.hear()


def _environment(python: str) -> dict[str, str]:
    """faiss-cpu's OpenBLAS does not know recent CPUs and takes kernels from 2004 unless it is told."""
    wide = "avx512f" in Path("/proc/cpuinfo").read_text(encoding="ascii")
    defaults = {"OPENBLAS_CORETYPE": "SkylakeX" if wide else "Haswell"}
    own = dict(os.environ)
    if python != sys.executable:
        own.pop("PYTHONPATH", None)
    return defaults | own


def _lines(
    rows: int, dim: int, shapes: Sequence[tuple[int, int]], peer: str | None, can: dict[str, float]
) -> Iterator[tuple[str, ...]]:
    sizes = (rows, dim, max(queries for _, queries in shapes))
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(sys.executable, "kosine", *sizes))]
        if peer is not None:
            workers.append(stack.enter_context(Worker(peer, "faiss", *sizes)))
        for worker in workers:
            worker.hear()
        for k, queries in shapes:
            yield _line(workers, rows=rows, dim=dim, k=k, queries=queries, can=can)


def _line(
    workers: list[Worker], *, rows: int, dim: int, k: int, queries: int, can: dict[str, float]
) -> tuple[str, ...]:
    floor = 1e3 * max(2 * rows * dim * queries / can["flops"], 4 * rows * dim / can["bytes"])
    calls = max(3, min(30, round(200 / floor)))
    rounds = [[one.measure(queries=queries, k=k, calls=calls) for one in workers] for _ in range(ROUNDS)]
    times = [median(ms for each in rounds for ms in each[at]["ms"]) for at in range(len(workers))]
    found = [answer["rows"] for answer in rounds[0]]
    head = (
        f"{rows}",
        f"{dim}",
        f"{k}",
        f"{queries}",
        f"{floor:.2f}",
        f"{times[0]:.2f}",
        f"{times[0] / floor:.2f}",
    )
    if len(workers) == 1:
        return (*head, "", "", "")
    shared = [len(set(a) & set(b)) / len(b) for a, b in zip(*found, strict=True)]
    recall = sum(shared) / len(shared)
    return (*head, f"{times[1]:.2f}", f"{times[1] / times[0]:.2f}", f"{recall:.3f}")


@click.command()
@click.option("--rows", type=int, multiple=True, default=[100_000], show_default=True)
@click.option("--dim", type=int, multiple=True, default=[100, 768], show_default=True)
@click.option("--k", "ks", type=int, multiple=True, default=[10], show_default=True)
@click.option("--batch", "batches", type=int, multiple=True, default=[1, 16, 128], show_default=True)
@click.option("--peer-python", help="A Python with faiss-cpu; without one there is no comparison.")
def main(
    rows: tuple[int, ...],
    dim: tuple[int, ...],
    ks: tuple[int, ...],
    batches: tuple[int, ...],
    peer_python: str | None,
) -> None:
    """Print the table. Each option may be given several times; every combination is measured."""
    with Worker(sys.executable, "floor") as floor:
        can = floor.hear()
    table = Table(
        "rows", "dim", "k", "B", "floor", "kosine", "/floor", "faiss", "faiss/kosine", "recall", box=None
    )
    console = Console(width=_WIDTH)
    shapes = list(product(ks, batches))
    for count in rows:
        for size in dim:
            for line in _lines(count, size, shapes, peer_python, can):
                table.add_row(*line)
    console.print(
        f"GEMM {can['flops'] / 1e9:.0f} GFLOP/s, read {can['bytes'] / 1e9:.1f} GB/s, "
        f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}"
    )
    console.print(table)


if __name__ == "__main__":
    main()
