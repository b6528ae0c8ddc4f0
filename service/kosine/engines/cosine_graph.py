"""The engine: one TensorFlow graph per k bucket over one captured constant matrix.

The matrix is an eager tensor that the graphs capture: TensorFlow passes it by reference, so there is no 2 GB
limit, no copy on a CPU, and `close` gives the memory back. A graph takes any number of queries; all of them
are traced when the engine is built and run by `warm_up`, so no request ever waits for a trace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from kosine.engines.matrix import padded_rows
from kosine.engines.search_plan import block_width, bucket_of, k_buckets, queries_per_call
from kosine.engines.two_stage import best_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kosine.engines.matrix import DimMajorMatrix

__all__ = ("CosineGraph",)

_ALIGNMENT = 64
"""TensorFlow aborts the process when it is handed memory at any other boundary."""

_SAFE_SUM = float(np.finfo(np.float32).max) / 2
"""A dot product whose terms add up to less, signs aside, cannot overflow in any order of summing."""


class CosineGraph:
    """Implements `Engine` on one TensorFlow device."""

    def __init__(
        self, matrix: DimMajorMatrix, *, metric: str, max_k: int, max_rows: int, device: str
    ) -> None:
        """Take the matrix over and trace every k bucket.

        A batch of more than `max_rows` queries, or of more scores than one call may hold, is split.
        """
        self.rows = matrix.rows
        self.dim = matrix.dim
        self.max_k = max_k
        self.device = device
        self.nbytes = matrix.nbytes
        self.buckets = k_buckets(max_k, matrix.rows)
        self._queries_per_call = queries_per_call(matrix.rows, max_rows)
        with tf.device(device):
            items = _adopt(matrix, device)
            limits = _largest_by_dim(items) if metric == "dot" else None
        self._graphs = {k: _trace(items, limits, k=k, rows=matrix.rows, device=device) for k in self.buckets}

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """See `Engine.search`. Scores of a `dot` query that may not fit a float32 are all NaN."""
        if not self._graphs:
            raise RuntimeError("the engine is closed; a version must not be searched after its last lease")
        if queries.ndim != 2 or queries.shape[1] != self.dim or queries.dtype != np.float32:  # noqa: PLR2004
            raise ValueError(
                f"expected float32 queries [B, {self.dim}], got {queries.dtype} {list(queries.shape)}"
            )
        if not 1 <= k <= self.max_k:
            raise ValueError(f"expected k in 1..{self.max_k}, got {k}")
        graph = self._graphs[bucket_of(self.buckets, k)]
        calls = -(-len(queries) // self._queries_per_call)
        if calls <= 1:
            return _answer(graph, queries, min(k, self.rows))
        parts = [_answer(graph, part, min(k, self.rows)) for part in np.array_split(queries, calls)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def warm_up(self, batch_sizes: tuple[int, ...], progress: Callable[[str], None]) -> None:
        """See `Engine.warm_up`. Largest first, so that the allocator grows only once."""
        for size in sorted(batch_sizes, reverse=True):
            queries = np.ones((size, self.dim), np.float32)
            for k in reversed(self.buckets):
                self.search(queries, k)
                progress(f"k={k}, {size} queries")

    def close(self) -> None:
        """See `Engine.close`. Graphs are reference cycles: the memory is free after the next collection."""
        self._graphs = {}


def _adopt(matrix: DimMajorMatrix, device: str) -> Any:
    """The matrix as a tensor: the same memory on a CPU, a copy on a GPU."""
    data = matrix.data
    wanted = (matrix.dim, padded_rows(matrix.rows))
    if data.shape != wanted or data.dtype != np.float32 or not data.flags.c_contiguous:
        raise ValueError(
            f"expected a float32 matrix {list(wanted)} in C order, got {data.dtype} {list(data.shape)}"
        )
    if data.ctypes.data % _ALIGNMENT:
        raise ValueError(
            f"expected a matrix at a multiple of {_ALIGNMENT} bytes; use DimMajorMatrix.allocate"
        )
    tensor = tf.experimental.dlpack.from_dlpack(data.__dlpack__())
    return tensor if device == "/CPU:0" else tf.identity(tensor)


def _largest_by_dim(items: Any) -> Any:
    """[dim]: the largest magnitude in each dimension."""
    return tf.maximum(tf.reduce_max(items, axis=1), -tf.reduce_min(items, axis=1))


def _trace(items: Any, limits: Any, *, k: int, rows: int, device: str) -> Any:
    """The graph of one k bucket; `limits` makes it a dot product, else queries are normalised."""
    width = block_width(k, rows)

    def search(queries: Any) -> tuple[Any, Any]:
        with tf.device(device):
            if limits is not None:
                numbers, scores = best_rows(tf.matmul(queries, items), k, rows=rows, width=width)
                return numbers, scores + _nan_where_unsafe(queries, limits)
            norms = tf.sqrt(tf.reduce_sum(tf.square(queries), axis=1, keepdims=True))
            return best_rows(tf.matmul(queries / norms, items), k, rows=rows, width=width)

    signature = [tf.TensorSpec([None, items.shape[0]], tf.float32)]
    return tf.function(search, input_signature=signature, autograph=False).get_concrete_function()


def _nan_where_unsafe(queries: Any, limits: Any) -> Any:
    """[B, 1]: 0, or NaN where a score may have overflowed and with it the order of the rows."""
    sums = tf.reduce_sum(tf.abs(queries) * limits, axis=1, keepdims=True)
    return tf.where(sums < _SAFE_SUM, 0.0, float("nan"))


def _answer(
    graph: Any, queries: NDArray[np.float32], width: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    numbers, scores = graph(tf.constant(queries))
    return numbers.numpy()[:, :width], scores.numpy()[:, :width]
