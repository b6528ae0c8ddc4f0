"""Which rows a query may find, and the way such a query takes. Pure: no TensorFlow.

What each way costs, and where they cross, is measured in docs/performance.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ("MOST_GATHERED", "MOST_REMADE", "RowFilter", "Way", "excluded_places", "masks_of", "way_of")

MOST_GATHERED = 500
"""Rows that are looked up one by one; past it a share of the product over all rows costs less."""

MOST_REMADE = 128
"""Excluded rows of a query whose blocks are made anew; past it a mask takes less time and memory."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowFilter:
    """What a query may find; every part narrows it. Numbers are those of rows, in any order."""

    excluded: NDArray[np.int32] | None = None
    included: NDArray[np.int32] | None = None
    """Nothing but these, each once."""
    mask: NDArray[np.bool_] | None = None
    """[rows]: nothing but where it is true."""

    def narrowed(self) -> NDArray[np.int32]:
        """The included rows that may be found, in their order."""
        rows = self.included if self.included is not None else np.empty(0, np.int32)
        if self.mask is not None:
            rows = rows[self.mask[rows]]
        return rows if self.excluded is None else rows[~np.isin(rows, self.excluded)]


class Way(StrEnum):
    """How a query is answered."""

    PRODUCT = "product"
    """With the others, from the scores of all rows."""
    REMADE_BLOCKS = "remade_blocks"
    """The same; blocks with excluded rows are made anew."""
    MASKED = "masked"
    """The same, from a masked copy of its scores."""
    GATHERED = "gathered"
    """By itself, from a few rows."""


def way_of(filter_: RowFilter | None) -> Way:
    """The cheapest way.

    >>> rows = np.arange(300, dtype=np.int32)
    >>> [str(way_of(each)) for each in (None, RowFilter(excluded=rows[:9]), RowFilter(excluded=rows))]
    ['product', 'remade_blocks', 'masked']
    """
    if filter_ is None:
        return Way.PRODUCT
    if filter_.included is not None and len(filter_.included) <= MOST_GATHERED:
        return Way.GATHERED
    if filter_.included is not None or filter_.mask is not None:
        return Way.MASKED
    if filter_.excluded is None or not len(filter_.excluded):
        return Way.PRODUCT
    return Way.REMADE_BLOCKS if len(filter_.excluded) <= MOST_REMADE else Way.MASKED


def excluded_places(filters: Sequence[RowFilter | None], *, first: int, rows: int) -> NDArray[np.int32]:
    """[M, 2]: (query, column) of what is excluded in the tile of `rows` that begins with row `first`."""
    found = [
        (query, filter_.excluded)
        for query, filter_ in enumerate(filters)
        if filter_ is not None and filter_.excluded is not None
    ]
    if not found:
        return np.empty((0, 2), np.int32)
    queries = np.repeat([query for query, _ in found], [len(excluded) for _, excluded in found])
    columns = np.concatenate([excluded for _, excluded in found]) - first
    inside = (columns >= 0) & (columns < rows)
    return np.stack([queries[inside], columns[inside]], axis=1).astype(np.int32)


def masks_of(
    filters: Sequence[RowFilter | None], *, first: int, rows: int, columns: int
) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Masks [M, columns] of a tile, each once, and the number [B] of the mask of each query.

    The first lets everything pass.
    """
    masks = [np.ones(columns, np.bool_)]
    numbers: dict[tuple[int, int, int], int] = {}
    which = np.zeros(len(filters), np.int32)
    for query, filter_ in enumerate(filters):
        if filter_ is None:
            continue
        same = (id(filter_.mask), id(filter_.included), id(filter_.excluded))
        if same not in numbers:
            numbers[same] = len(masks)
            masks.append(_mask(filter_, first=first, rows=rows, columns=columns))
        which[query] = numbers[same]
    return np.stack(masks), which


def _mask(filter_: RowFilter, *, first: int, rows: int, columns: int) -> NDArray[np.bool_]:
    mask = np.zeros(columns, np.bool_)
    if filter_.included is None:
        mask[:rows] = True
    else:
        inside = filter_.included - first
        mask[inside[(inside >= 0) & (inside < rows)]] = True
    if filter_.mask is not None:
        mask[:rows] &= filter_.mask[first : first + rows]
    if filter_.excluded is not None:
        out = filter_.excluded - first
        mask[out[(out >= 0) & (out < rows)]] = False
    return mask
