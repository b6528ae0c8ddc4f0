"""A system that answers exact or nearly exact top-k, and how it is started and asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from kosine.bench.files import make_file, make_queries, read_file

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ("Asker", "Data", "Peer", "Shape", "Window", "make_data")

_CLUSTERS, _INNER = 200, 48


@dataclass(frozen=True, slots=True)
class Shape:
    """Which rows: Gaussian, or in clusters as embeddings of sentences are."""

    rows: int
    dim: int
    clustered: bool = False

    def __str__(self) -> str:
        kind = "clustered" if self.clustered else "Gaussian"
        return f"{self.rows} x {self.dim}, {kind}"


@dataclass(frozen=True, slots=True)
class Data:
    """One file, queries [Q, d], and the right answers [Q, k]."""

    file: Path
    queries: NDArray[np.float64]
    exact: NDArray[np.int64]

    @property
    def k(self) -> int:
        """Items asked for."""
        return int(self.exact.shape[1])


@dataclass(frozen=True, slots=True)
class Window:
    """What came of one load: answers a second, milliseconds, and the share of rows that belong there."""

    throughput: float
    p50: float
    p99: float
    recall: float
    failed: int


class Asker(Protocol):
    """A started peer."""

    def ask(self, *, connections: int, seconds: float) -> Window:
        """Closed loop; blocks."""


class Peer(Protocol):
    """A line of the table."""

    @property
    def name(self) -> str:
        """In the table."""

    def start(self, data: Data) -> AbstractContextManager[Asker]:
        """Start it on loopback, wait until it answers, and stop it afterwards."""


def make_data(folder: Path, shape: Shape, *, k: int, queries: int, seed: int) -> Data:
    """Write the file, and find the right answers in float64."""
    file = folder / f"{shape.rows}x{shape.dim}.npy"
    if shape.clustered:
        vectors, asked = _clustered(shape, queries, seed)
        np.save(file, vectors)
    else:
        make_file(file, rows=shape.rows, dim=shape.dim, seed=seed)
        asked = make_queries(queries, shape.dim, seed=seed + 1)
    return Data(file, asked, _exact(read_file(file), asked, k))


def _clustered(shape: Shape, queries: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A mixture of low dimension under noise: where approximate search is at its best."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((_CLUSTERS, _INNER))
    basis = rng.standard_normal((_INNER, shape.dim)) / np.sqrt(_INNER)

    def draw(count: int) -> NDArray[np.float64]:
        inner = centres[rng.integers(_CLUSTERS, size=count)] + 0.3 * rng.standard_normal((count, _INNER))
        drawn: NDArray[np.float64] = inner @ basis + 0.05 * rng.standard_normal((count, shape.dim))
        return drawn

    return draw(shape.rows).astype(np.float32), draw(queries).round(8)


def _exact(vectors: NDArray[np.floating], queries: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    unit = np.asarray(vectors, dtype=np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    best = [np.argsort(-(unit @ query), kind="stable")[:k] for query in queries]
    return np.array(best, dtype=np.int64)
