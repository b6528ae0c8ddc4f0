"""The engine: one constant matrix, bound to the graphs that every engine of the process shares.

The matrix is an eager tensor: TensorFlow passes it by reference, so there is no 2 GB limit and no copy on a
CPU. Nothing is traced here but for the first of its metric, so no request ever waits for a trace, and an
engine is part of no reference cycle: `close` gives the memory back at once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tensorflow as tf

from kosine.engines.exact_scores import ExactScorer
from kosine.engines.filters import Filtering, RowFilter, Way, excluded_places, masks_of, parted, way_of
from kosine.engines.gathered import best_of_few
from kosine.engines.matrix import BLOCK
from kosine.engines.pages import pages_of
from kosine.engines.screened_tiles import ScreenedTiles
from kosine.engines.search_graphs import sizes_of
from kosine.engines.search_plan import (
    MOST_UNMERGED,
    block_width,
    masked_calls,
    queries_per_call,
    warm_up_calls,
)
from kosine.engines.spare import SpareResults, drop, excluded_by, left_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from kosine.engines.matrix import ItemMatrix
    from kosine.engines.pages import Page, PageQuery
    from kosine.engines.search_graphs import SearchGraphs
    from kosine.engines.single_query import SingleQuery

__all__ = ("CosineGraph",)

_ALIGNMENT = 64
"""TensorFlow aborts the process when it is handed memory at any other boundary."""


class CosineGraph:
    """Implements `Engine` on one TensorFlow device."""

    def __init__(
        self, matrix: ItemMatrix, *, metric: str, max_k: int, max_rows: int, graphs: SearchGraphs
    ) -> None:
        """Take the matrix over.

        A batch of more than `max_rows` queries, or of more scores than one call may hold, is split.
        """
        self.rows = matrix.rows
        self.dim = matrix.dim
        self.max_k = max_k
        self.device = graphs.device
        self.nbytes = matrix.nbytes
        self._metric = metric
        self._graphs = graphs
        self._queries_per_call = queries_per_call(matrix.rows, max_rows)
        self._places = matrix.tiles()
        self._plans: dict[int, list[tuple[bool, Any]]] = {}
        self._alone: SingleQuery | None = None
        self._spare = SpareResults()
        self._columns = matrix.columns
        self._matrix = matrix if self.device == "/CPU:0" else None
        self._order = matrix.order
        graphs.prepare(metric, self._order)
        with tf.device(self.device):
            self._tiles = _adopt(matrix, self.device)
            self._limits = [_largest_by_dim(self._tiles)] if metric == "dot" else []
            self._screened: ScreenedTiles | None = None
            if self._order == "row_major":
                self._screened = ScreenedTiles(matrix, self._tiles, graphs=graphs)
                self.nbytes += self._screened.nbytes

    @property
    def single_query(self) -> Literal["blas", "graph"]:
        """The way a query by itself takes; by the graph before `warm_up`."""
        return "graph" if self._alone is None else "blas"

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """See `Engine.search`. Scores of a `dot` query that may not fit a float32 are all NaN."""
        self._check(queries, k)
        if self._alone is not None and len(queries) == 1:
            found = self._alone.search(queries, min(k, self.rows))
            if found is not None:
                return found
        calls = -(-len(queries) // self._queries_per_call)
        if calls <= 1:
            return self._answer(queries, min(k, self.rows))
        parts = [self._answer(part, min(k, self.rows)) for part in np.array_split(queries, calls)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _check(self, queries: NDArray[np.float32], k: int = 1) -> None:
        if not self._tiles:
            raise RuntimeError("the engine is closed; a version must not be searched after its last lease")
        if queries.ndim != 2 or queries.shape[1] != self.dim or queries.dtype != np.float32:  # noqa: PLR2004
            raise ValueError(
                f"expected float32 queries [B, {self.dim}], got {queries.dtype} {list(queries.shape)}"
            )
        if not 1 <= k <= self.max_k:
            raise ValueError(f"expected k in 1..{self.max_k}, got {k}")

    def search_filtered(
        self, queries: NDArray[np.float32], k: int, filters: Sequence[RowFilter | None]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """See `Engine.search_filtered`; NaN as in `search`."""
        self._check(queries, k)
        width = min(k, self.rows)
        ways = [way_of(each) for each in filters]
        masked = Way.MASKED in ways
        at_once = masked_calls(self._queries_per_call) if masked else self._queries_per_call
        if Way.GATHERED not in ways and 0 < len(queries) <= at_once:
            return self._answer_filtered(queries, width, filters, masked=masked)
        numbers = np.zeros((len(queries), width), np.int32)
        scores = np.full((len(queries), width), -np.inf, np.float32)
        for query, way in enumerate(ways):
            if way is Way.GATHERED and (narrow := filters[query]) is not None:
                found = best_of_few(self.take, queries[query], narrow.narrowed(), width, metric=self._metric)
                numbers[query, : len(found[0])], scores[query, : len(found[1])] = found
        together = [query for query, way in enumerate(ways) if way is not Way.GATHERED]
        for part in _parts(together, at_once):
            found = self._answer_filtered(
                queries[part], width, [filters[each] for each in part], masked=masked
            )
            numbers[part], scores[part] = found
        return numbers, scores

    def _answer_filtered(
        self, queries: NDArray[np.float32], k: int, filters: Sequence[RowFilter | None], *, masked: bool
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        if masked:
            return self._answer(queries, k, filters, "masks")
        few = self._alone_without(queries, k, filters) if len(queries) == 1 else None
        return few or self._with_spare(queries, k, filters) or self._answer(queries, k, filters, "places")

    def _with_spare(
        self, queries: NDArray[np.float32], k: int, filters: Sequence[RowFilter | None]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]] | None:
        """By more results than wanted; None where they would not be worth it."""
        excluded = excluded_by(filters)
        most = max(map(len, excluded))
        if not self._spare.worth_trying(k=k, rows=self.rows, queries=len(queries), most=most):
            return None
        found = self._answer(queries, k + self._spare.results)
        numbers, scores, short = drop(*found, left_out(excluded, most), k)
        self._spare.note(short=len(short), queries=len(queries))
        if len(short):
            again = self._answer(queries[short], k, [filters[query] for query in short.tolist()], "places")
            numbers[short], scores[short] = again
        return numbers, scores

    def _alone_without(
        self, queries: NDArray[np.float32], k: int, filters: Sequence[RowFilter | None]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]] | None:
        """One query with few excluded rows: as many more are found by BLAS, and the excluded dropped."""
        excluded = filters[0].excluded if filters[0] is not None else None
        more = 0 if excluded is None else len(excluded)
        if self._alone is None or k + more > self.rows:
            return None
        found = self._alone.search(queries, k + more)
        if found is None or excluded is None:
            return found
        left = np.flatnonzero(~np.isin(found[0][0], excluded))[:k]
        return found[0][:, left], found[1][:, left]

    def search_after(self, queries: NDArray[np.float32], asked: Sequence[PageQuery]) -> list[Page]:
        """See `Engine.search_after`."""
        self._check(queries)
        scorers = map(self._scorer, queries)
        return pages_of(zip(scorers, asked, strict=True), tiles=self._places, product=self._product)

    def score(self, query: NDArray[np.float32], rows: NDArray[np.int32]) -> NDArray[np.float32]:
        """See `Engine.score`."""
        self._check(query[None])
        return self._scorer(query).of(rows)

    def _scorer(self, query: NDArray[np.float32]) -> ExactScorer:
        limits = self._limits[0].numpy() if self._limits else None
        return ExactScorer(query, take=self.take, limits=limits)

    def _product(self, units: NDArray[np.float32], tile: int) -> NDArray[np.float32]:
        """Scores [B, columns] of a tile, as near as float32 comes."""
        scores: NDArray[np.float32]
        if self._matrix is not None:
            scores = units @ self._matrix.dim_major[tile]
        else:
            with tf.device(self.device):
                scores = tf.matmul(units, self._tiles[tile]).numpy()
        return scores

    def take(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """See `Engine.take`."""
        if self._matrix is not None:
            return self._matrix.take(rows)
        tiles, places = np.divmod(rows, self._columns)
        taken = np.empty((len(rows), self.dim), np.float32)
        for tile in np.unique(tiles).tolist():
            mine = tiles == tile
            taken[mine] = tf.transpose(tf.gather(self._tiles[tile], places[mine], axis=1)).numpy()
        return taken

    def _answer(
        self,
        queries: NDArray[np.float32],
        k: int,
        filters: Sequence[RowFilter | None] = (),
        filtering: Filtering = "none",
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Tile by tile, so that the scores of one are forgotten before those of the next are computed."""
        asked = tf.constant(queries)
        tiles = range(len(self._tiles))
        return self._best_of((self._of_tile(tile, asked, k, filters, filtering) for tile in tiles), k)

    def _of_tile(
        self,
        number: int,
        asked: Any,
        k: int,
        filters: Sequence[RowFilter | None] = (),
        filtering: Filtering = "none",
    ) -> tuple[Any, Any]:
        left_out = self._left_out(number, filters, filtering)
        screened = self._screened.search(number, asked, k, filtering, left_out) if self._screened else None
        if screened is None:
            return self._by_float32(number, asked, k, filtering, left_out)
        numbers, scores, unproven = screened
        if len(unproven):
            their_filters = [filters[query] for query in unproven.tolist()] if filters else ()
            again = self._by_float32(
                number,
                tf.gather(asked, unproven),
                k,
                filtering,
                self._left_out(number, their_filters, filtering),
            )
            numbers, scores = (
                tf.tensor_scatter_nd_update(found, unproven[:, np.newaxis], better)
                for found, better in zip((numbers, scores), again, strict=True)
            )
        return numbers, scores

    def _by_float32(
        self, number: int, asked: Any, k: int, filtering: Filtering, left_out: Sequence[Any]
    ) -> tuple[Any, Any]:
        by_block, sizes = self._plan(k)[number]
        graph = self._graphs.of(self._metric, self._order, by_block=by_block, filtering=filtering)
        found: tuple[Any, Any] = graph(asked, self._tiles[number], sizes, *self._limits, *left_out)
        return found

    def _best_of(
        self, found: Iterable[tuple[Any, Any]], k: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The best of what was found in tile after tile; merged early where it would take much memory."""
        kept: list[tuple[Any, Any]] = []
        for part in found:
            kept.append(part)
            if len(kept) > 1 and sum(map(_results, kept)) > MOST_UNMERGED:
                kept = [self._merged(kept, k)]
        numbers, scores = kept[0] if len(kept) == 1 else self._merged(kept, k)
        return numbers.numpy(), scores.numpy()

    def _merged(self, found: list[tuple[Any, Any]], k: int) -> tuple[Any, Any]:
        numbers, scores = (tf.concat([part[at] for part in found], axis=1) for at in (0, 1))
        merged: tuple[Any, Any] = self._graphs.merge(numbers, scores, tf.constant(min(k, scores.shape[1])))
        return merged

    def _left_out(self, tile: int, filters: Sequence[RowFilter | None], filtering: Filtering) -> list[Any]:
        if filtering == "none":
            return []
        first, rows = self._places[tile]
        if filtering == "places":
            return [tf.constant(excluded_places(filters, first=first, rows=rows))]
        few, rest = parted(filters)
        masks, which = masks_of(rest, first=first, rows=rows, columns=self._columns)
        places = excluded_places(few, first=first, rows=rows)
        return [tf.constant(masks), tf.constant(which), tf.constant(places)]

    def _plan(self, k: int) -> list[tuple[bool, Any]]:
        """Whether blocks are used, and the sizes, of each tile; kept, as callers use few different k."""
        plan = self._plans.get(k)
        if plan is None:
            plan = self._plans[k] = [self._plan_tile(k, *tile) for tile in self._places]
        return plan

    def _plan_tile(self, k: int, first: int, rows: int) -> tuple[bool, Any]:
        most = min(k, rows)
        width = block_width(most, rows)
        return width is not None, sizes_of(first=first, rows=rows, k=most, width=width)

    def warm_up(self, batch_sizes: tuple[int, ...], progress: Callable[[str], None]) -> None:
        """See `Engine.warm_up`. Largest first, so that the allocator grows only once.

        Of several tiles only the last is searched, for all: each takes the memory of the one before it, and
        none takes more than the last, whose padding is cut off.
        """
        for size, k, filtering in warm_up_calls(batch_sizes, min(self.max_k, self.rows)):
            if not self._graphs.is_warm(
                queries=size, k=k, rows=self.rows, order=self._order, filtering=filtering
            ):
                self._warm_up(size, k, filtering)
                self._graphs.note_warm(
                    queries=size, k=k, rows=self.rows, order=self._order, filtering=filtering
                )
            progress(f"k={k}, {size} queries, {filtering} left out")
        if self._matrix is not None and self._metric == "cosine":
            graphs = [partial(self._search_tile, number) for number in range(len(self._tiles))]
            self._alone = self._graphs.single_query.blas(self._matrix, graphs)

    def _warm_up(self, size: int, k: int, filtering: Filtering) -> None:
        masked = filtering == "masks"
        at_once = masked_calls(self._queries_per_call) if masked else self._queries_per_call
        # As callers ask: screening learns from what it finds.
        queries = self.take(np.arange(min(size, at_once)) % self.rows)
        filter_ = RowFilter(
            excluded=np.zeros(1, np.int32) if filtering == "places" else None,
            mask=np.ones(self.rows, np.bool_) if masked else None,
        )
        last = len(self._tiles) - 1
        found = self._of_tile(last, tf.constant(queries), k, [filter_] * len(queries), filtering)
        self._best_of([found] * len(self._tiles), k)

    def _search_tile(self, number: int, query: NDArray[np.float32], k: int) -> object:
        return self._best_of([self._of_tile(number, tf.constant(query), k)], k)

    def close(self) -> None:
        """See `Engine.close`."""
        self._tiles = self._limits = []
        self._alone = self._matrix = self._screened = None


def _results(found: tuple[Any, Any]) -> int:
    return int(found[1].shape[0] * found[1].shape[1])


def _parts(queries: list[int], size: int) -> Iterator[list[int]]:
    """As few equal parts as `size` allows."""
    calls = -(-len(queries) // size)
    return (part.tolist() for part in np.array_split(queries, calls)) if calls else iter(())


def _adopt(matrix: ItemMatrix, device: str) -> list[Any]:
    """The tiles as tensors: the same memory on a CPU, a copy on a GPU."""
    data = matrix.data
    fits = data.ndim == 3 and data.shape[0] == len(matrix.tiles()) and matrix.columns % BLOCK == 0  # noqa: PLR2004
    if not fits or data.dtype != np.float32 or not data.flags.c_contiguous:
        raise ValueError(
            f"expected {matrix.rows} rows as float32 in tiles in C order, columns a multiple of "
            f"{BLOCK}, got {data.dtype} {list(data.shape)}"
        )
    if data.ctypes.data % _ALIGNMENT:
        raise ValueError(f"expected a matrix at a multiple of {_ALIGNMENT} bytes; use ItemMatrix.allocate")
    tensors = [tf.experimental.dlpack.from_dlpack(tile.__dlpack__()) for tile in data]
    return tensors if device == "/CPU:0" else [tf.identity(tensor) for tensor in tensors]


def _largest_by_dim(tiles: list[Any]) -> Any:
    """[dim]: the largest magnitude in each dimension."""
    extremes = [tf.maximum(tf.reduce_max(tile, axis=1), -tf.reduce_min(tile, axis=1)) for tile in tiles]
    return tf.reduce_max(tf.stack(extremes), axis=0)
