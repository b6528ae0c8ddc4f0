"""What becomes of rows that cannot be searched, where the configuration says to leave them out.

By default one such row refuses the file (`not_finite`, `zero_rows`). With `invalid_rows: drop` the others are
served: their ids stay theirs, row numbers stay those of the file, and the version says what it lacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kosine.engines.matrix import DimMajorMatrix, padded_rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kosine.serving.status import DroppedRows

__all__ = ("Dropped", "compact")


@dataclass(frozen=True, slots=True, eq=False)
class Dropped:
    """Some rows of a file were left out."""

    kept: NDArray[np.int64]
    """Row numbers in the file of what is in the matrix, ascending."""
    told: DroppedRows

    def ids_of(self, ids: NDArray[np.generic] | None) -> NDArray[np.generic]:
        """One id a row of the matrix; `ids` [N of the file], or None where a row's number is its id."""
        return self.kept if ids is None else ids[self.kept]


def compact(matrix: DimMajorMatrix, keep: NDArray[np.bool_]) -> DimMajorMatrix:
    """The rows of `matrix` where `keep` [rows] is true, in the same memory; `matrix` is used up.

    Line after line moves towards the beginning, never past what has not been read.
    """
    rows = int(keep.sum())
    columns = padded_rows(rows)
    flat = matrix.data.reshape(-1)
    for number, line in enumerate(matrix.data[:, : matrix.rows]):
        start = number * columns
        flat[start : start + rows] = line[keep]
        flat[start + rows : start + columns] = 0.0
    return DimMajorMatrix(data=flat[: matrix.dim * columns].reshape(matrix.dim, columns), rows=rows)
