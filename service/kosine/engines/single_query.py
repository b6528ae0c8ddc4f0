"""One cosine query by itself: BLAS's matrix-vector product instead of the graph, where it measures faster.

TensorFlow has no good product of one row and a matrix `[d, N]` on a CPU. Over 100k x 100 its MatMul takes 3
to 5 ms of CPU time, NumPy's 0.7 to 1.5; matvec, halves of d or N, batched products, einsum and a sparse row
take as much or more, and XLA twice NumPy's plus a compilation for each shape (docs/performance.md).

BLAS promises no order of summing, so equal rows may differ in the last bit. Its scores only choose
candidates, with a margin for all that rounding can do; those are scored again in float64. So law 8 holds
whatever BLAS does.
"""

from __future__ import annotations

from itertools import cycle
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from kosine.engines.search_plan import block_width

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from kosine.engines.matrix import ItemMatrix, Order

    Search = Callable[[NDArray[np.float32], int], Any]
    """(query [1, dim], k)"""

__all__ = ("MOST_RESULTS", "SingleQuery", "SingleQueryChoice")

MOST_RESULTS = 128
"""Past it scoring the candidates again costs more than the product saves."""

_ROUNDS = 7
_K = 10

_UNIT_ROUNDOFF = 2.0**-24


class SingleQuery:
    """Over a matrix of unit rows in the memory of this process."""

    def __init__(self, matrix: ItemMatrix) -> None:
        tiles, dim, columns = matrix.dim_major.shape
        self._matrix = matrix
        self._columns = tiles * columns
        # A sum of dim products of two unit vectors is off by dim + 2 roundings at most, and two are compared.
        self._margin = np.float32(2 * (dim + 2) * _UNIT_ROUNDOFF)

    def search(
        self, query: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]] | None:
        """The best `k` rows [1, k] and scores [1, k] for `query` [1, dim], ties to the lower row.

        None where the graph is the better choice: too many results, too few rows, or too many rows that tie.
        """
        width = block_width(k, self._matrix.rows)
        if k > MOST_RESULTS or width is None:
            return None
        unit = query[0].astype(np.float64)
        unit /= np.sqrt(np.einsum("i,i->", unit, unit))
        scores = self._scores(unit.astype(np.float32))
        near = np.flatnonzero(scores >= _kth_or_less(scores, k, width) - self._margin)
        if len(near) > 8 * MOST_RESULTS:
            return None
        exact = np.einsum("ij,j->i", self._matrix.take(near), unit, dtype=np.float64).astype(np.float32)
        best = np.argsort(-exact, kind="stable")[:k]
        return near[best].astype(np.int32)[None], exact[best][None]

    def _scores(self, unit: NDArray[np.float32]) -> NDArray[np.float32]:
        scores = np.empty(self._columns, np.float32)
        tiles = self._matrix.dim_major
        for tile, part in zip(tiles, np.split(scores, len(tiles)), strict=True):
            np.matmul(unit, tile, out=part)
        return scores[: self._matrix.rows]


class SingleQueryChoice:
    """Which way a query by itself takes: measured once for each order and size of matrix.

    Not at each reload: a measurement beside requests says more about them, and takes their time. Of a matrix
    in tiles each call takes the next tile, since the time of either way is that of its tiles together: so it
    is not in the cache, and a million rows take no longer to measure than a tile.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._blas_is_faster: dict[tuple[Order, int, int], bool] = {}

    def blas(self, matrix: ItemMatrix, graphs: Sequence[Search]) -> SingleQuery | None:
        """The way by BLAS, or None where the graph, called alternately, took less time by the median.

        `graphs` search a tile each.
        """
        size = (matrix.order, matrix.dim, matrix.rows.bit_length())
        if size not in self._blas_is_faster:
            self._blas_is_faster[size] = self._measure(matrix, graphs)
        return SingleQuery(matrix) if self._blas_is_faster[size] else None

    def _measure(self, matrix: ItemMatrix, graphs: Sequence[Search]) -> bool:
        # With others near it, as what callers ask for has; numbers at random are easier to screen.
        query = matrix.take(np.zeros(1, np.intp))
        blas = [SingleQuery(matrix.tile(number)).search for number in range(len(graphs))]
        k = min(_K, matrix.rows)
        if blas[0](query, k) is None:
            return False
        by_blas, by_graph = cycle(blas), cycle(graphs)
        rounds = [
            (self._seconds(by_blas, query, k), self._seconds(by_graph, query, k)) for _ in range(_ROUNDS)
        ]
        blas_seconds, graph_seconds = (median(taken) for taken in zip(*rounds, strict=True))
        structlog.get_logger(__name__).info(
            "single_query_measured",
            rows=matrix.rows,
            dim=matrix.dim,
            blas_ms=round(blas_seconds * 1e3, 3),
            graph_ms=round(graph_seconds * 1e3, 3),
        )
        return bool(blas_seconds < graph_seconds)

    def _seconds(self, way: Iterator[Search], query: NDArray[np.float32], k: int) -> float:
        # A caller who is alone goes one way again and again; after the other its threads wake up late.
        next(way)(query, k)
        began = self._clock()
        next(way)(query, k)
        return self._clock() - began


def _kth_or_less(scores: NDArray[np.float32], k: int, width: int) -> np.float32:
    """A bound that at least `k` scores reach: the k-th largest maximum of blocks."""
    blocks = len(scores) // width
    maxima = scores[: blocks * width].reshape(width, blocks).max(axis=0)
    bound: np.float32 = np.partition(maxima, blocks - k)[blocks - k]
    return bound
