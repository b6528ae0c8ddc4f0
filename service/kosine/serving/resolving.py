"""From the ids that a caller names to the rows of one version. Every check comes before the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kosine.engines.filters import RowFilter
from kosine.errors import UnknownId
from kosine.serving.options import RowOptions
from kosine.serving.request import SearchOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kosine.errors import RequestError
    from kosine.serving.item_ids import ItemIds

__all__ = ("resolve_ids", "resolve_options")

_SHOWN = 80
_LARGEST = float(np.finfo(np.float32).max)


def resolve_options(options: SearchOptions, ids: ItemIds) -> RowOptions:
    """What `options` mean for queries by their vectors. Raises InvalidValue.

    Ids that the index does not hold are ignored, in `exclude` as in `include`: a list of what somebody has
    seen outlives the items. So does Qdrant's `has_id`.
    """
    return _row_options(options, *_named(options, ids), _scored(options, ids), stored=None)


def resolve_ids(
    wanted: Sequence[int | str], options: SearchOptions | None, ids: ItemIds
) -> list[RowOptions | RequestError]:
    """One query each, by the vector of a stored item; UnknownId in the place of an id that is none.

    An item does not find itself unless `options` say so. Raises InvalidValue.
    """
    options = options or SearchOptions()
    rows = ids.find(wanted, field="id" if len(wanted) == 1 else "ids").tolist()
    excluded, included = _named(options, ids)
    scored = _scored(options, ids)
    return [
        _row_options(options, excluded, included, scored, stored=row) if row >= 0 else _unknown(each)
        for each, row in zip(wanted, rows, strict=True)
    ]


def _named(options: SearchOptions, ids: ItemIds) -> tuple[NDArray[np.int32] | None, NDArray[np.int32] | None]:
    """Rows that are excluded, and those that are included."""
    excluded = _known(options.exclude, ids, "exclude") if options.exclude else None
    included = None if options.include is None else np.unique(_known(options.include, ids, "include"))
    return excluded, included


def _scored(options: SearchOptions, ids: ItemIds) -> NDArray[np.int32] | None:
    return None if options.score is None else _known(options.score, ids, "ids")


def _known(named: Sequence[int | str], ids: ItemIds, field: str) -> NDArray[np.int32]:
    rows = ids.find(named, field=field)
    return rows[rows >= 0]


def _row_options(
    options: SearchOptions,
    excluded: NDArray[np.int32] | None,
    included: NDArray[np.int32] | None,
    scored: NDArray[np.int32] | None,
    *,
    stored: int | None,
) -> RowOptions:
    itself = np.array([stored], np.int32) if stored is not None else None
    if options.itself:
        included = itself
    elif itself is not None and not options.include_self:
        excluded = itself if excluded is None else np.concatenate((excluded, itself))
    filtered = excluded is not None or included is not None
    return RowOptions(
        stored=stored,
        filter=RowFilter(excluded=excluded, included=included) if filtered else None,
        min_score=_comparable(options.min_score),
        with_embeddings=options.with_embeddings,
        paged=options.after is not None,
        scored=scored,
    )


def _comparable(score: float | None) -> float | None:
    """What every float32 compares with as with `score`."""
    return None if score is None else max(-_LARGEST, min(_LARGEST, score))


def _unknown(wanted: int | str) -> UnknownId:
    shown = ascii(wanted)[:_SHOWN]
    return UnknownId(
        f"no item of this index has the id {shown}", id=wanted if isinstance(wanted, int) else shown
    )
