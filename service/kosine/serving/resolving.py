"""From the ids and masks that a caller names to rows of one version. Every check comes before the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct, structs

from kosine.engines.filters import RowFilter
from kosine.errors import UnknownId
from kosine.serving.options import RowOptions
from kosine.serving.request import SearchOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kosine.errors import RequestError
    from kosine.serving.item_ids import ItemIds
    from kosine.serving.masks import Masks

__all__ = ("resolve_ids", "resolve_options")

_SHOWN = 80
_LARGEST = float(np.finfo(np.float32).max)


def resolve_options(options: SearchOptions, ids: ItemIds, masks: Masks) -> RowOptions:
    """What `options` mean for queries by their vectors. Raises InvalidValue or UnknownMask.

    Ids that the index does not hold are ignored, in `exclude` as in `include`: a list of what somebody has
    seen outlives the items. So does Qdrant's `has_id`.
    """
    return _row_options(options, _shared(options, ids, masks), stored=None)


def resolve_ids(
    wanted: Sequence[int | str], options: SearchOptions | None, ids: ItemIds, masks: Masks
) -> list[RowOptions | RequestError]:
    """One query each, by the vector of a stored item; UnknownId in the place of an id that is none.

    An item does not find itself unless `options` say so. Raises InvalidValue or UnknownMask.
    """
    options = options or SearchOptions()
    rows = ids.find(wanted, field="id" if len(wanted) == 1 else "ids").tolist()
    shared = _shared(options, ids, masks)
    return [
        _row_options(options, shared, stored=row) if row >= 0 else _unknown(each)
        for each, row in zip(wanted, rows, strict=True)
    ]


class _Shared(Struct, frozen=True):
    """What is the same for every query of a request: arrays that are the same are combined once a batch."""

    filter: RowFilter
    masks: tuple[str | None, str | None]
    """Their digests."""
    scored: NDArray[np.int32] | None


def _shared(options: SearchOptions, ids: ItemIds, masks: Masks) -> _Shared:
    named = (options.mask, options.not_mask)
    mask, not_mask = (None if name is None else masks.find(name) for name in named)
    filter_ = RowFilter(
        excluded=ids.known(options.exclude, field="exclude") if len(options.exclude) else None,
        included=None if options.include is None else np.unique(ids.known(options.include, field="include")),
        mask=None if mask is None else mask.flags,
        not_mask=None if not_mask is None else not_mask.flags,
    )
    digests = (None if mask is None else mask.digest, None if not_mask is None else not_mask.digest)
    return _Shared(filter_, digests, None if options.score is None else ids.known(options.score, field="ids"))


def _row_options(options: SearchOptions, shared: _Shared, *, stored: int | None) -> RowOptions:
    filter_ = shared.filter
    itself = np.array([stored], np.int32) if stored is not None else None
    if options.itself:
        filter_ = structs.replace(filter_, included=itself)
    elif itself is not None and not options.include_self:
        others = filter_.excluded
        excluded = itself if others is None else np.concatenate((others, itself))
        filter_ = structs.replace(filter_, excluded=excluded)
    return RowOptions(
        stored=stored,
        filter=filter_ if filter_.narrows else None,
        masks=shared.masks,
        min_score=_comparable(options.min_score),
        with_embeddings=options.with_embeddings,
        paged=options.after is not None,
        scored=shared.scored,
    )


def _comparable(score: float | None) -> float | None:
    """What every float32 compares with as with `score`."""
    return None if score is None else max(-_LARGEST, min(_LARGEST, score))


def _unknown(wanted: int | str) -> UnknownId:
    shown = ascii(wanted)[:_SHOWN]
    return UnknownId(
        f"no item of this index has the id {shown}", id=wanted if isinstance(wanted, int) else shown
    )
