"""From the ids and masks that a caller names to rows of one version. Every check comes before the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec import structs

from kosine.engines.filters import RowFilter
from kosine.errors import UnknownId
from kosine.serving.options import RowOptions
from kosine.serving.request import SearchOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kosine.errors import RequestError
    from kosine.serving.item_ids import ItemIds
    from kosine.serving.masks import Masks

    _Digests = tuple[str | None, str | None]

__all__ = ("resolve_ids", "resolve_options")

_SHOWN = 80
_LARGEST = float(np.finfo(np.float32).max)


def resolve_options(options: SearchOptions, ids: ItemIds, masks: Masks) -> RowOptions:
    """What `options` mean for queries by their vectors. Raises InvalidValue or UnknownMask.

    Ids that the index does not hold are ignored, in `exclude` as in `include`: a list of what somebody has
    seen outlives the items. So does Qdrant's `has_id`.
    """
    filter_, digests = _filter(options, ids, masks)
    return RowOptions(
        filter=filter_ if filter_.narrows else None,
        masks=digests,
        min_score=None if options.min_score is None else _comparable(options.min_score),
        with_embeddings=options.with_embeddings,
        paged=options.after is not None,
        scored=None if options.score is None else ids.known(options.score, field="ids"),
    )


def resolve_ids(
    wanted: Sequence[int | str], options: SearchOptions | None, ids: ItemIds, masks: Masks
) -> list[RowOptions | RequestError]:
    """One query each, by the vector of a stored item; UnknownId in the place of an id that is none.

    An item does not find itself unless `options` say so. Raises InvalidValue or UnknownMask.
    """
    options = options or SearchOptions()
    rows = ids.find(wanted, field="id" if len(wanted) == 1 else "ids").tolist()
    # Arrays that are the same for several queries are combined once a batch.
    shared = resolve_options(options, ids, masks)
    return [
        _by_stored(options, shared, row) if row >= 0 else _unknown(each)
        for each, row in zip(wanted, rows, strict=True)
    ]


def _filter(options: SearchOptions, ids: ItemIds, masks: Masks) -> tuple[RowFilter, _Digests]:
    """And the digests of its masks."""
    # A cursor is bound to the rows that are left out, whatever else was named beside them.
    rows_of = ids.left_out if options.after is None else ids.known
    excluded = rows_of(options.exclude, field="exclude") if len(options.exclude) else None
    included = None if options.include is None else np.unique(ids.known(options.include, field="include"))
    if options.mask is None and options.not_mask is None:
        return RowFilter(excluded=excluded, included=included), (None, None)
    mask = None if options.mask is None else masks.find(options.mask)
    not_mask = None if options.not_mask is None else masks.find(options.not_mask)
    filter_ = RowFilter(
        excluded=excluded,
        included=included,
        mask=None if mask is None else mask.flags,
        not_mask=None if not_mask is None else not_mask.flags,
    )
    return filter_, (None if mask is None else mask.digest, None if not_mask is None else not_mask.digest)


def _by_stored(options: SearchOptions, shared: RowOptions, row: int) -> RowOptions:
    """`shared` for the query whose vector is that of `row`."""
    filter_, itself = shared.filter or RowFilter(), np.array([row], np.int32)
    if options.itself:
        filter_ = structs.replace(filter_, included=itself)
    elif not options.include_self:
        others = filter_.excluded
        excluded = itself if others is None else np.concatenate((others, itself))
        filter_ = structs.replace(filter_, excluded=excluded)
    return structs.replace(shared, stored=row, filter=filter_ if filter_.narrows else None)


def _comparable(score: float) -> float:
    """What every float32 compares with as with `score`."""
    return max(-_LARGEST, min(_LARGEST, score))


def _unknown(wanted: int | str) -> UnknownId:
    shown = ascii(wanted)[:_SHOWN]
    return UnknownId(
        f"no item of this index has the id {shown}", id=wanted if isinstance(wanted, int) else shown
    )
