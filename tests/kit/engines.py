"""An engine in plain NumPy: what serving, http and loading are tested with, TensorFlow left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kosine.engines.matrix import ItemMatrix
from kosine.engines.pages import Page

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from kosine.engines.filters import RowFilter
    from kosine.engines.matrix import Order
    from kosine.engines.pages import PageQuery

__all__ = ("NumpyDevice", "NumpyEngine", "matrix_of")


def matrix_of(vectors: ArrayLike, *, normalise: bool = True, order: Order = "dim_major") -> ItemMatrix:
    """The in-memory form of `[N, d]` vectors, unit rows unless told otherwise."""
    values = np.asarray(vectors, dtype=np.float64)
    if normalise:
        values = values / np.linalg.norm(values, axis=1, keepdims=True)
    matrix = ItemMatrix.allocate(len(values), values.shape[1], order)
    for first, columns in matrix.spans(0, matrix.rows):
        columns[...] = values[first : first + columns.shape[1]].T
    return matrix


@dataclass(slots=True, kw_only=True, eq=False)
class NumpyEngine:
    """Implements `Engine`: scored in float64, ties to the lower row.

    While `hold` is set to an Event that is not set, `search` blocks until somebody sets it.
    What `fail_on` returns for a batch of queries is raised instead of an answer.
    """

    matrix: ItemMatrix | None
    metric: str = "cosine"
    max_k: int = 1000
    device: str = "/CPU:0"
    single_query: str = "graph"
    hold: threading.Event | None = None
    fail_on: Callable[[NDArray[np.float32]], Exception | None] | None = None
    batches: list[tuple[int, int]] = field(default_factory=list)
    """(rows, k) of every search so far, failed ones included."""
    warmed: list[int] = field(default_factory=list)
    rows: int = field(init=False)
    dim: int = field(init=False)
    nbytes: int = field(init=False)

    def __post_init__(self) -> None:
        if self.matrix is None:
            raise ValueError("expected a matrix; None is what close() leaves behind")
        self.rows, self.dim, self.nbytes = self.matrix.rows, self.matrix.dim, self.matrix.nbytes

    @property
    def closed(self) -> bool:
        """Whether the matrix is gone."""
        return self.matrix is None

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """See `Engine.search`; breaking its contract fails the test."""
        assert queries.dtype == np.float32
        assert queries.ndim == 2
        assert queries.shape[1] == self.dim
        assert 1 <= k <= self.max_k
        self.batches.append((len(queries), k))
        if self.hold is not None:
            self.hold.wait()
        failure = self.fail_on(queries) if self.fail_on is not None else None
        if failure is not None:
            raise failure
        if self.matrix is None:
            raise RuntimeError("searched after close()")
        return self._answer(self.matrix, queries.astype(np.float64), min(k, self.rows))

    def search_filtered(
        self, queries: NDArray[np.float32], k: int, filters: Sequence[RowFilter | None]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """See `Engine.search_filtered`: everything is sorted, then what a filter stops is dropped."""
        assert len(queries) == len(filters)
        width = min(k, self.rows)
        self.max_k, most = max(self.max_k, self.rows), self.max_k
        numbers, scores = self.search(queries, self.rows)
        self.max_k = most
        self.batches[-1] = (len(queries), k)
        found = np.zeros((len(queries), width), np.int32), np.full((len(queries), width), -np.inf, np.float32)
        for query, filter_ in enumerate(filters):
            left = np.flatnonzero(_passes(filter_, numbers[query]))[:width]
            found[0][query, : len(left)] = numbers[query, left]
            found[1][query, : len(left)] = scores[query, left]
        return found

    def search_after(self, queries: NDArray[np.float32], asked: Sequence[PageQuery]) -> list[Page]:
        """See `Engine.search_after`: everything is sorted, then what lies behind the place is cut off."""
        found = self.search_filtered(queries, self.rows, [each.filter for each in asked])
        return [_cut(rows, scores, wanted) for rows, scores, wanted in zip(*found, asked, strict=True)]

    def score(self, query: NDArray[np.float32], rows: NDArray[np.int32]) -> NDArray[np.float32]:
        """See `Engine.score`."""
        numbers, scores = self.search_filtered(query[None], self.rows, [None])
        by_row = np.empty(self.rows, np.float32)
        by_row[numbers[0]] = scores[0]
        return by_row[rows]

    def take(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """See `Engine.take`."""
        assert self.matrix is not None
        return self.matrix.take(rows)

    def _answer(
        self, matrix: ItemMatrix, queries: NDArray[np.float64], k: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        if self.metric == "cosine":
            queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        items = matrix.take(np.arange(self.rows)).astype(np.float64)
        scores = (queries @ items.T).astype(np.float32)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return best.astype(np.int32), np.take_along_axis(scores, best, axis=1)

    def warm_up(self, batch_sizes: tuple[int, ...], progress: Callable[[str], None]) -> None:
        """Run each batch size once at `max_k`."""
        for size in batch_sizes:
            self.search(np.ones((size, self.dim), np.float32), self.max_k)
            self.warmed.append(size)
            progress(f"batch of {size}")

    def close(self) -> None:
        """Drop the matrix."""
        self.matrix = None


def _cut(rows: NDArray[np.int32], scores: NDArray[np.float32], wanted: PageQuery) -> Page:
    left = scores > -np.inf
    if wanted.min_score is not None:
        left &= scores >= wanted.min_score
    if wanted.after is not None:
        level = (scores == wanted.after.score) & (rows > wanted.after.row)
        left &= (scores < wanted.after.score) | level
    rows, scores = rows[left], scores[left]
    return Page(rows[: wanted.k], scores[: wanted.k], more=len(rows) > wanted.k)


def _passes(filter_: RowFilter | None, rows: NDArray[np.int32]) -> NDArray[np.bool_]:
    passed = np.ones(len(rows), np.bool_)
    if filter_ is None:
        return passed
    if filter_.excluded is not None:
        passed &= ~np.isin(rows, filter_.excluded)
    if filter_.included is not None:
        passed &= np.isin(rows, filter_.included)
    if filter_.mask is not None:
        passed &= filter_.mask[rows]
    return passed if filter_.not_mask is None else passed & ~filter_.not_mask[rows]


@dataclass(slots=True, kw_only=True, eq=False)
class NumpyDevice:
    """Implements `EngineFactory`; keeps what it built, and hands `options` to every engine."""

    device: str = "/CPU:0"
    options: dict[str, Any] = field(default_factory=dict)
    fail_build: Exception | None = None
    copy_bytes: int = 0
    built: list[NumpyEngine] = field(default_factory=list)

    def order(self, metric: str, *, rows: int, dim: int) -> Order:
        """See `EngineFactory.order`."""
        del metric, rows, dim
        return "row_major" if self.copy_bytes else "dim_major"

    def build(self, matrix: ItemMatrix, *, metric: str, max_k: int, max_rows: int) -> NumpyEngine:
        """See `EngineFactory.build`."""
        del max_rows
        if self.fail_build is not None:
            raise self.fail_build
        engine = NumpyEngine(matrix=matrix, metric=metric, max_k=max_k, device=self.device, **self.options)
        self.built.append(engine)
        return engine

    def scratch_bytes(self, order: Order, *, rows: int, dim: int, max_rows: int, max_k: int) -> int:
        """The score matrix, and what is said to be kept beside row-major items."""
        del dim, max_k
        return 4 * rows * max_rows + (self.copy_bytes if order == "row_major" else 0)
