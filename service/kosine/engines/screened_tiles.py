"""The tiles of a matrix that is searched by screening: see `kosine.engines.screening`."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from kosine.engines.matrix import zeroed
from kosine.engines.screened_scores import round_items
from kosine.engines.screening import Screening
from kosine.engines.search_graphs import sizes_of
from kosine.engines.search_plan import block_width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kosine.engines.filters import Filtering
    from kosine.engines.matrix import ItemMatrix
    from kosine.engines.search_graphs import SearchGraphs

__all__ = ("ScreenedTiles",)


class ScreenedTiles:
    """Of one engine, used by its device thread."""

    def __init__(self, matrix: ItemMatrix, tiles: Sequence[Any], *, graphs: SearchGraphs) -> None:
        """`tiles` are those of the row-major `matrix`, which is copied in bfloat16."""
        self._tiles = tiles
        self._places = matrix.tiles()
        self._dim = matrix.dim
        self._graphs = graphs
        copy = zeroed(matrix.data.shape, np.dtype(np.uint16))
        self._roundings = [
            tf.constant(round_items(items, rounded)) for items, rounded in zip(matrix.data, copy, strict=True)
        ]
        bits = [tf.experimental.dlpack.from_dlpack(tile.__dlpack__()) for tile in copy]
        self._rounded = [tf.bitcast(tile, tf.bfloat16) for tile in bits]
        self.nbytes = int(copy.nbytes)
        """Of the copy."""
        self._screening = Screening()
        self._sizes: dict[tuple[int, int, int], Any] = {}

    def search(
        self, number: int, queries: Any, k: int, filtering: Filtering, left_out: Sequence[Any]
    ) -> tuple[Any, Any, NDArray[np.intp]] | None:
        """Numbers and scores [B, k] of a tile for `queries` [B, dim], and who of them has no proof.

        None where a search by float32 is the better choice.
        """
        rows, asked = self._places[number][1], queries.shape[0]
        at_once = self._screening.at_once(k=k, dim=self._dim)
        possible = filtering == "none" or (filtering == "masks" and asked <= at_once)
        if not possible or not self._screening.worth_trying(k=k, rows=rows, dim=self._dim, queries=asked):
            return None
        sizes = self._sizes_of(number, k)
        graph = self._graphs.of("cosine", "screened", by_block=True, filtering=filtering)
        tile = self._tiles[number], self._rounded[number], sizes, self._roundings[number]
        parts = [graph(part, *tile, *left_out) for part in _parts(queries, at_once)]
        numbers, scores, proven = parts[0] if len(parts) == 1 else map(_joined, zip(*parts, strict=True))
        unproven = np.flatnonzero(~proven.numpy())
        self._screening.note(unproven=len(unproven), queries=asked)
        return numbers, scores, unproven

    def _sizes_of(self, number: int, k: int) -> Any:
        passing = self._screening.passing(k)
        key = (number, k, passing)
        if key not in self._sizes:
            first, rows = self._places[number]
            width = block_width(passing, rows)
            self._sizes[key] = sizes_of(first=first, rows=rows, k=k, width=width, passing=passing)
        return self._sizes[key]


def _parts(queries: Any, size: int) -> list[Any]:
    """As few equal parts as `size` allows."""
    count = -(-queries.shape[0] // size)
    if count == 1:
        return [queries]
    borders = np.linspace(0, queries.shape[0], count + 1).astype(int).tolist()
    return [queries[left:right] for left, right in pairwise(borders)]


def _joined(parts: Sequence[Any]) -> Any:
    return tf.concat(parts, axis=0)
