"""Peer engines behind kosine's own HTTP and batcher, so that what differs is the scoring alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from kosine.engines.filters import RowFilter
    from kosine.engines.matrix import ItemMatrix, Order
    from kosine.engines.pages import Page, PageQuery

__all__ = ("PEER_ENGINES", "PeerDevice", "PeerEngine")

PeerEngine = Literal["faiss", "numpy", "hnsw", "null"]
PEER_ENGINES: tuple[PeerEngine, ...] = get_args(PeerEngine)


@dataclass(slots=True, eq=False)
class _Engine:
    """Implements `Engine` over a function from unit queries [B, d] and k to row numbers and scores [B, k]."""

    find: Callable[[NDArray[np.float32], int], tuple[NDArray[np.integer], NDArray[np.float32]]] | None
    rows: int
    dim: int
    max_k: int
    nbytes: int
    device: str = "/CPU:0"
    single_query: str = "graph"

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        assert self.find is not None
        unit = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        rows, scores = self.find(unit, min(k, self.rows))
        return rows.astype(np.int32), scores

    def search_filtered(
        self, queries: NDArray[np.float32], k: int, filters: Sequence[RowFilter | None]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        raise NotImplementedError("peers are compared on plain queries")

    def search_after(self, queries: NDArray[np.float32], asked: Sequence[PageQuery]) -> list[Page]:
        raise NotImplementedError("peers are compared on plain queries")

    def score(self, query: NDArray[np.float32], rows: NDArray[np.int32]) -> NDArray[np.float32]:
        raise NotImplementedError("peers are compared on plain queries")

    def take(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        raise NotImplementedError("peers are compared on plain queries")

    def warm_up(self, batch_sizes: tuple[int, ...], progress: Callable[[str], None]) -> None:
        progress("warm-up")
        for size in batch_sizes:
            self.search(np.ones((size, self.dim), dtype=np.float32), min(10, self.max_k))

    def close(self) -> None:
        self.find = None


@dataclass(frozen=True, slots=True)
class PeerDevice:
    """Implements `EngineFactory`: what `open_device` gives, for a peer."""

    engine: PeerEngine
    threads: int
    device: str = "/CPU:0"

    def order(self, metric: str, *, rows: int, dim: int) -> Order:
        """See `EngineFactory.order`: peers make their own copy."""
        del metric, rows, dim
        return "row_major"

    def build(self, matrix: ItemMatrix, *, metric: str, max_k: int, max_rows: int) -> _Engine:
        """See `EngineFactory.build`."""
        del max_rows
        assert metric == "cosine"
        unit = matrix.take(np.arange(matrix.rows))
        find = _BUILDERS[self.engine](unit, self.threads)
        return _Engine(find, rows=matrix.rows, dim=matrix.dim, max_k=max_k, nbytes=unit.nbytes)

    def scratch_bytes(self, order: Order, *, rows: int, dim: int, max_rows: int, max_k: int) -> int:
        """See `EngineFactory.scratch_bytes`."""
        del order, dim, max_k
        return 4 * rows * max_rows

    def prepare(self) -> None:
        """See `OpenedDevice.prepare`: peers share nothing."""

    def describe(self) -> dict[str, str | int]:
        """See `EngineFactory.describe`."""
        return {"device": self.device, "engine": self.engine, "threads": self.threads}


def _faiss(unit: NDArray[np.float32], threads: int) -> Any:
    # As a user who has read its manual would: its own default leaves batches below 20 to slower code, and
    # OpenBLAS does not know this processor.
    os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")
    import faiss

    faiss.omp_set_num_threads(threads)
    faiss.cvar.distance_compute_blas_threshold = 1
    index = faiss.IndexFlatIP(unit.shape[1])
    index.add(unit)

    def find(queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.integer], NDArray[np.float32]]:
        scores, rows = index.search(queries, k)
        return rows, scores

    return find


def _numpy(unit: NDArray[np.float32], threads: int) -> Any:
    del threads
    columns = np.ascontiguousarray(unit.T)

    def find(queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.integer], NDArray[np.float32]]:
        scores = queries @ columns
        rows = np.argpartition(scores, -k, axis=1)[:, -k:]
        found = np.take_along_axis(scores, rows, axis=1)
        order = np.argsort(-found, axis=1)
        return np.take_along_axis(rows, order, axis=1), np.take_along_axis(found, order, axis=1)

    return find


def _hnsw(unit: NDArray[np.float32], threads: int) -> Any:
    import hnswlib

    index = hnswlib.Index(space="ip", dim=unit.shape[1])
    index.init_index(max_elements=len(unit), M=16, ef_construction=200, random_seed=1)
    index.add_items(unit, num_threads=threads)
    index.set_ef(64)

    def find(queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.integer], NDArray[np.float32]]:
        rows, distances = index.knn_query(queries, k=k, num_threads=1)
        return rows, 1 - distances

    return find


def _null(unit: NDArray[np.float32], threads: int) -> Any:
    """Finds nothing, at once: what is left is HTTP and batching."""
    del unit, threads

    def find(queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.integer], NDArray[np.float32]]:
        shape = (len(queries), k)
        return np.zeros(shape, dtype=np.int32), np.ones(shape, dtype=np.float32)

    return find


_BUILDERS: dict[PeerEngine, Callable[[NDArray[np.float32], int], Any]] = {
    "faiss": _faiss,
    "numpy": _numpy,
    "hnsw": _hnsw,
    "null": _null,
}
