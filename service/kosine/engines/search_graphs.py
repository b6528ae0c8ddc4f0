"""The traced functions of a process, made before the first engine of their metric and used by every one.

The matrix is an argument of a graph and never a Const node: a Const ends at 2 GB, takes several times the
memory, and would have to be traced again for each version. So are k, the number of rows and the width of a
block. Hence a reload traces nothing: tracing holds the interpreter lock for tens of milliseconds, in which no
request is read or answered, and TensorFlow keeps some memory of every function that was ever traced.
"""

from __future__ import annotations

from itertools import product
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, get_args

import tensorflow as tf

from kosine.engines.exact_scores import SAFE_SUM
from kosine.engines.filters import Filtering
from kosine.engines.matrix import BLOCK
from kosine.engines.screened_scores import screened
from kosine.engines.single_query import SingleQueryChoice
from kosine.engines.two_stage import (
    best_rows,
    best_rows_by_block,
    masked,
    merge_best,
    without,
    without_by_block,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kosine.engines.matrix import Order

__all__ = ("Scoring", "SearchGraphs", "sizes_of")

Scoring = Literal["dim_major", "row_major", "screened"]
"""By one product of float32, of items in either order; or screened first, items row-major."""

_QUERIES = tf.TensorSpec([None, None], tf.float32)
_NUMBERS = tf.TensorSpec([None, None], tf.int32)
_ITEMS = tf.TensorSpec([None, None], tf.float32)
_ROUNDED = tf.TensorSpec([None, None], tf.bfloat16)
_LIMITS = tf.TensorSpec([None], tf.float32)
_SIZES = tf.TensorSpec([4], tf.int32)
_SCREENED_SIZES = tf.TensorSpec([5], tf.int32)
_ROUNDING = tf.TensorSpec([], tf.float32)
_PLACES = tf.TensorSpec([None, 2], tf.int32)
_MASKS = tf.TensorSpec([None, None], tf.bool)
_WHICH = tf.TensorSpec([None], tf.int32)
_FILTERS: dict[str, list[Any]] = {"none": [], "places": [_PLACES], "masks": [_MASKS, _WHICH, _PLACES]}

_ALIKE = 1.25
"""A matrix that has grown by less finds the memory of its calls in TensorFlow's pool, or nearly all of it."""


class SearchGraphs:
    """The graphs of one TensorFlow device, by metric, scoring, whether blocks are used, and what is left out.

    A cosine graph takes (queries [B, dim], items, sizes), a dot graph (queries, items, sizes, limits [dim]);
    both answer (row numbers [B, k] int32, scores [B, k]). One that screens takes (queries, items, the same in
    bfloat16, sizes, rounding), and answers in addition whether that is proven [B]. Items are a tile in the
    order the graph is for; `sizes` comes from `sizes_of`. One that leaves out `places` takes them last,
    [M, 2] int32, each (query, column); one that `masks` takes masks [M, columns], the number [B] of the mask
    of each query, and places. What is left out scores -inf. `merge` takes (row numbers, scores, k) of tiles
    side by side.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._graphs: dict[tuple[str, Scoring, bool, Filtering], Any] = {}
        self._preparing = Lock()
        self.merge = tf.function(
            merge_best,
            input_signature=[_NUMBERS, _QUERIES, tf.TensorSpec([], tf.int32)],
            autograph=False,
        ).get_concrete_function()
        self.single_query = SingleQueryChoice()
        self._warm: dict[tuple[int, int, Filtering, Order], int] = {}

    def prepare(self, metric: str, order: Order) -> None:
        """Trace the graphs of `metric` over items in that order, once. Thread-safe.

        Half a second or a little more, most of it with the interpreter lock.
        """
        with self._preparing:
            for kind in _kinds(metric, order):
                if kind not in self._graphs:
                    traced = self._trace(*kind)
                    traced(*self._smallest(*kind))
                    self._graphs[kind] = traced

    def _smallest(self, metric: str, scoring: Scoring, by_block: bool, filtering: Filtering) -> list[Any]:  # noqa: FBT001
        """Arguments: TensorFlow makes what runs a graph when it is first called."""
        sizes = sizes_of(
            first=0,
            rows=BLOCK,
            k=1,
            width=BLOCK // 2 if by_block else None,
            passing=1 if scoring == "screened" else None,
        )
        places, which = tf.zeros([0, 2], tf.int32), tf.zeros([1], tf.int32)
        left_out = {"none": [], "places": [places], "masks": [tf.ones([1, BLOCK], tf.bool), which, places]}
        with tf.device(self.device):
            items = tf.ones([1, BLOCK] if scoring == "dim_major" else [BLOCK, 1])
            own = [tf.ones([1, 1]), items, sizes]
            if metric == "dot":
                own.append(tf.ones([1]))
            if scoring == "screened":
                own[2:] = [tf.cast(items, tf.bfloat16), sizes, tf.constant(0.0)]
            return [*own, *left_out[filtering]]

    def of(self, metric: str, scoring: Scoring, *, by_block: bool, filtering: Filtering = "none") -> Any:
        """A ConcreteFunction; `metric` is prepared."""
        return self._graphs[metric, scoring, by_block, filtering]

    def is_warm(
        self, *, queries: int, k: int, rows: int, order: Order = "dim_major", filtering: Filtering = "none"
    ) -> bool:
        """Whether such a call has been made over a matrix that was not much smaller, by any engine."""
        return rows <= _ALIKE * self._warm.get((queries, k, filtering, order), 0)

    def note_warm(
        self, *, queries: int, k: int, rows: int, order: Order = "dim_major", filtering: Filtering = "none"
    ) -> None:
        """Such a call has been made."""
        call = (queries, k, filtering, order)
        self._warm[call] = max(rows, self._warm.get(call, 0))

    def _trace(self, metric: str, scoring: Scoring, by_block: bool, filtering: Filtering) -> Any:  # noqa: FBT001
        search, signature = _SEARCHES[metric, scoring]
        own = len(signature)

        def on_device(*arguments: Any) -> Any:
            mine, left_out = arguments[:own], arguments[own:]
            with tf.device(self.device):
                return search(_selection(filtering, left_out, by_block=by_block), *mine)

        return tf.function(
            on_device, input_signature=[*signature, *_FILTERS[filtering]], autograph=False
        ).get_concrete_function()


def _kinds(metric: str, order: Order) -> Iterator[tuple[str, Scoring, bool, Filtering]]:
    """What may be asked of items in that order."""
    for by_block, filtering in product((False, True), get_args(Filtering)):
        yield metric, order, by_block, filtering
    if order == "row_major" and metric == "cosine":
        yield metric, "screened", True, "none"
        yield metric, "screened", True, "masks"


def sizes_of(*, first: int, rows: int, k: int, width: int | None, passing: int | None = None) -> Any:
    """What a graph is told beside the vectors: the tile's first row, its rows, results, columns per block.

    With `passing` what one that screens is told: how many rows pass before columns per block, and k last.
    """
    sizes = [first, rows, k, width or 0] if passing is None else [first, rows, passing, width or 0, k]
    return tf.constant(sizes, tf.int32)


def _units(queries: Any) -> Any:
    return queries / tf.sqrt(tf.reduce_sum(tf.square(queries), axis=1, keepdims=True))


def _cosine(best: Any, queries: Any, items: Any, sizes: Any) -> tuple[Any, Any]:
    numbers, scores = best(tf.matmul(_units(queries), items), sizes)
    return numbers, scores


def _cosine_row_major(best: Any, queries: Any, items: Any, sizes: Any) -> tuple[Any, Any]:
    # Not MatMul, which takes up to 1.8 times as long over this order.
    product = tf.raw_ops.BatchMatMulV2(x=_units(queries)[tf.newaxis], y=items[tf.newaxis], adj_y=True)
    numbers, scores = best(tf.squeeze(product, 0), sizes)
    return numbers, scores


def _cosine_screened(
    best: Any, queries: Any, items: Any, rounded: Any, sizes: Any, rounding: Any
) -> tuple[Any, Any, Any]:
    return screened(best, _units(queries), items, rounded, sizes, rounding)


def _dot(best: Any, queries: Any, items: Any, sizes: Any, limits: Any) -> tuple[Any, Any]:
    numbers, scores = best(tf.matmul(queries, items), sizes)
    return numbers, scores + _nan_where_unsafe(queries, limits)


def _nan_where_unsafe(queries: Any, limits: Any) -> Any:
    """[B, 1]: 0, or NaN where a score may have overflowed and with it the order of the rows."""
    sums = tf.reduce_sum(tf.abs(queries) * limits, axis=1, keepdims=True)
    return tf.where(sums < SAFE_SUM, 0.0, float("nan"))


_SEARCHES: dict[tuple[str, Scoring], tuple[Any, list[Any]]] = {
    ("cosine", "dim_major"): (_cosine, [_QUERIES, _ITEMS, _SIZES]),
    ("cosine", "row_major"): (_cosine_row_major, [_QUERIES, _ITEMS, _SIZES]),
    ("cosine", "screened"): (_cosine_screened, [_QUERIES, _ITEMS, _ROUNDED, _SCREENED_SIZES, _ROUNDING]),
    ("dot", "dim_major"): (_dot, [_QUERIES, _ITEMS, _SIZES, _LIMITS]),
}


def _selection(filtering: Filtering, left_out: tuple[Any, ...], *, by_block: bool) -> Any:
    """What finds the best of the scores of a tile, with what is left out of them."""
    if filtering == "none":
        return _best_by_block if by_block else _best
    best = _best_without_by_block if by_block else _best_without
    if filtering == "places":
        return lambda scores, sizes: best(scores, sizes, *left_out)
    masks, which, places = left_out
    return lambda scores, sizes: best(masked(scores, masks, which), sizes, places)


def _best_without(scores: Any, sizes: Any, places: Any) -> tuple[Any, Any]:
    return _best(without(scores, places), sizes)


def _best_without_by_block(scores: Any, sizes: Any, places: Any) -> tuple[Any, Any]:
    first, rows, k, width = tf.unstack(sizes, 4)
    numbers, values = without_by_block(scores, k, rows=rows, width=width, places=places)
    return first + numbers, values


def _best(scores: Any, sizes: Any) -> tuple[Any, Any]:
    first, rows, k, _ = tf.unstack(sizes, 4)
    numbers, values = best_rows(scores, k, rows=rows)
    return first + numbers, values


def _best_by_block(scores: Any, sizes: Any) -> tuple[Any, Any]:
    first, rows, k, width = tf.unstack(sizes, 4)
    numbers, values = best_rows_by_block(scores, k, rows=rows, width=width)
    return first + numbers, values
