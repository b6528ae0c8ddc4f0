"""What one waiting row wants beside its vector and k; a plain query has none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kosine.engines.filters import RowFilter
    from kosine.engines.pages import Place

__all__ = ("RowOptions",)


class RowOptions(Struct, frozen=True, kw_only=True, eq=False):
    """Resolved against the version that answers: rows, not ids."""

    stored: int | None = None
    """The row whose vector is the query; it is looked up on the device thread."""
    filter: RowFilter | None = None
    masks: tuple[str | None, str | None] = (None, None)
    """Digests of the masks of the filter, whose flags are too many to be told apart by."""
    min_score: float | None = None
    with_embeddings: bool = False
    paged: bool = False
    """Whether what is found is a page of the query's own order."""
    after: Place | None = None
    """Where that page begins; None: at the beginning."""
    scored: NDArray[np.int32] | None = None
    """Rows that are scored, all of them, in place of a search."""

    @property
    def answered_apart(self) -> bool:
        """Whether the row shares no top-k with others."""
        return self.paged or self.scored is not None

    @property
    def only_filters(self) -> bool:
        """Whether what a search finds is the answer, where it finds enough."""
        return self.min_score is None and not (self.with_embeddings or self.answered_apart)

    @property
    def nbytes(self) -> int:
        """Of what is kept while the row waits; a named mask belongs to its version."""
        kept = 0 if self.scored is None else self.scored.nbytes
        return kept if self.filter is None else kept + self.filter.nbytes
