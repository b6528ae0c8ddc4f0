"""Which rows a query may find, and the way such a query takes. Pure: no TensorFlow.

What each way costs, and where they cross, is measured in docs/performance.md.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Literal

import numpy as np
from msgspec import Struct, structs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = (
    "MOST_GATHERED",
    "MOST_REMADE",
    "Filtering",
    "RowFilter",
    "Way",
    "excluded_places",
    "masks_of",
    "parted",
    "way_of",
)

Filtering = Literal["none", "places", "masks"]
"""How a graph leaves rows out: not at all, place by place, or by masks and places."""

MOST_GATHERED = 500
"""Rows that are looked up one by one; past it a share of the product over all rows costs less."""

MOST_REMADE = 128
"""Excluded rows of a query whose blocks are made anew; past it a mask takes less time and memory."""


class RowFilter(Struct, frozen=True, kw_only=True, eq=False):
    """What a query may find; every part narrows it. Numbers are those of rows, in any order."""

    excluded: NDArray[np.integer] | None = None
    """Whole numbers that are none of a row leave nothing out."""
    included: NDArray[np.int32] | None = None
    """Nothing but these, each once."""
    mask: NDArray[np.bool_] | None = None
    """[rows]: nothing but where it is true."""
    not_mask: NDArray[np.bool_] | None = None
    """[rows]: nothing where it is true."""

    @property
    def narrows(self) -> bool:
        """Whether it has any part."""
        return self.excluded is not None or self.included is not None or self.masks

    @property
    def masks(self) -> bool:
        """Whether it has a mask."""
        return self.mask is not None or self.not_mask is not None

    @property
    def nbytes(self) -> int:
        """Of the numbers of rows, which are its own; masks belong to a version."""
        few = 0 if self.excluded is None else self.excluded.nbytes
        return few if self.included is None else few + self.included.nbytes

    @property
    def same(self) -> tuple[int, ...]:
        """Equal for filters of the very same arrays, as long as these live."""
        return id(self.excluded), id(self.included), id(self.mask), id(self.not_mask)

    def parted(self) -> tuple[RowFilter | None, RowFilter | None]:
        """What is few enough to be left out place by place, and the rest, which others may have as well."""
        if self.excluded is None or len(self.excluded) > MOST_REMADE:
            return None, self
        rest = structs.replace(self, excluded=None)
        return RowFilter(excluded=self.excluded), rest if rest.narrows else None

    def narrowed(self) -> NDArray[np.int32]:
        """The included rows that may be found, in their order."""
        rows = self.included if self.included is not None else np.empty(0, np.int32)
        if self.mask is not None:
            rows = rows[self.mask[rows]]
        if self.not_mask is not None:
            rows = rows[~self.not_mask[rows]]
        return rows if self.excluded is None else rows[~np.isin(rows, self.excluded)]


class Way(StrEnum):
    """How a query is answered."""

    PRODUCT = "product"
    """With the others, from the scores of all rows."""
    REMADE_BLOCKS = "remade_blocks"
    """The same; blocks whose best row is excluded are made anew."""
    MASKED = "masked"
    """The same, from a masked copy of its scores, in which blocks may be made anew, too."""
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
    if filter_.included is not None or filter_.masks:
        return Way.MASKED
    if filter_.excluded is None or not len(filter_.excluded):
        return Way.PRODUCT
    return Way.REMADE_BLOCKS if len(filter_.excluded) <= MOST_REMADE else Way.MASKED


def parted(
    filters: Sequence[RowFilter | None],
) -> tuple[list[RowFilter | None], list[RowFilter | None]]:
    """`RowFilter.parted` of each query: those by their places, and those by masks."""
    parts = [(None, None) if each is None else each.parted() for each in filters]
    return [few for few, _ in parts], [rest for _, rest in parts]


def excluded_places(filters: Sequence[RowFilter | None], *, first: int, rows: int) -> NDArray[np.int32]:
    """[M, 2]: (query, column) of what is excluded in the tile of `rows` that begins with row `first`."""
    found = [
        (query, filter_.excluded)
        for query, filter_ in enumerate(filters)
        if filter_ is not None and filter_.excluded is not None
    ]
    if not found:
        return np.empty((0, 2), np.int32)
    counts = [len(excluded) for _, excluded in found]
    columns = np.concatenate([excluded for _, excluded in found]).astype(np.int64, copy=False) - first
    queries = np.repeat(np.array([query for query, _ in found], np.int32), counts)
    # A number below the first becomes a large one.
    inside = columns.view(np.uint64) < rows
    if not inside.all():
        queries, columns = queries[inside], columns[inside]
    return np.stack((queries, columns.astype(np.int32)), axis=1)


def masks_of(
    filters: Sequence[RowFilter | None], *, first: int, rows: int, columns: int
) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
    """Masks [M, columns] of a tile, each once, and the number [B] of the mask of each query.

    The first lets everything pass.
    """
    distinct: list[RowFilter] = []
    numbers: dict[tuple[int, ...], int] = {}
    which = np.zeros(len(filters), np.int32)
    for query, filter_ in enumerate(filters):
        if filter_ is None:
            continue
        if filter_.same not in numbers:
            distinct.append(filter_)
            numbers[filter_.same] = len(distinct)
        which[query] = numbers[filter_.same]
    masks = np.zeros((1 + len(distinct), columns), np.bool_)
    masks[0] = True
    for number, filter_ in enumerate(distinct, start=1):
        _fill(masks[number, :rows], filter_, first=first)
    return masks, which


def _fill(mask: NDArray[np.bool_], filter_: RowFilter, *, first: int) -> None:
    """Make `mask` [rows], all false, that of the rows from `first` on."""
    tile = slice(first, first + len(mask))
    if filter_.included is not None:
        mask[_inside(filter_.included, tile)] = True
        if filter_.mask is not None:
            mask &= filter_.mask[tile]
    else:
        mask[...] = True if filter_.mask is None else filter_.mask[tile]
    if filter_.not_mask is not None:
        np.greater(mask, filter_.not_mask[tile], out=mask)  # `and not`, in one pass
    if filter_.excluded is not None:
        mask[_inside(filter_.excluded, tile)] = False


def _inside(rows: NDArray[np.integer], tile: slice) -> NDArray[np.integer]:
    """Places in the tile of those that lie in it."""
    places: NDArray[np.integer] = rows[(rows >= tile.start) & (rows < tile.stop)] - tile.start
    return places
