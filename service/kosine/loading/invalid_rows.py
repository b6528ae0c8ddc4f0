"""What becomes of rows that cannot be searched, where the configuration says to leave them out.

By default one such row refuses the file (`not_finite`, `zero_rows`). With `invalid_rows: drop` the others are
served: their ids stay theirs, row numbers stay those of the file, and the version says what it lacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kosine.engines.matrix import ItemMatrix
    from kosine.serving.status import DroppedRows

__all__ = ("Dropped", "compact")

_STEP = 4096
"""Rows moved at a time, through a copy."""


@dataclass(frozen=True, slots=True, eq=False)
class Dropped:
    """Some rows of a file were left out."""

    kept: NDArray[np.int64]
    """Row numbers in the file of what is in the matrix, ascending."""
    told: DroppedRows

    def ids_of(self, ids: NDArray[np.generic] | None) -> NDArray[np.generic]:
        """One id a row of the matrix; `ids` [N of the file], or None where a row's number is its id."""
        return self.kept if ids is None else ids[self.kept]


def compact(matrix: ItemMatrix, keep: NDArray[np.bool_]) -> ItemMatrix:
    """The rows of `matrix` where `keep` [rows] is true, in the same memory; `matrix` is used up.

    Rows only ever move to lower places, so none is written before it has been read.
    """
    kept = 0
    for left in range(0, matrix.rows, _STEP):
        for first, columns in matrix.spans(left, min(matrix.rows, left + _STEP)):
            good = columns[:, keep[first : first + columns.shape[1]]]
            for place, target in matrix.spans(kept, kept + good.shape[1]):
                target[...] = good[:, place - kept :][:, : target.shape[1]]
            kept += good.shape[1]
    return matrix.first(kept)
