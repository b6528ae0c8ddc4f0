"""What one waiting row wants beside its vector and k; a plain query has none of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kosine.engines.filters import RowFilter

__all__ = ("RowOptions",)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowOptions:
    """Resolved against the version that answers: rows, not ids."""

    stored: int | None = None
    """The row whose vector is the query; it is looked up on the device thread."""
    filter: RowFilter | None = None
    min_score: float | None = None
    with_embeddings: bool = False

    @property
    def nbytes(self) -> int:
        """Of what is kept while the row waits; a named mask belongs to its version."""
        if self.filter is None:
            return 0
        kept = (self.filter.excluded, self.filter.included)
        return sum(rows.nbytes for rows in kept if rows is not None)
