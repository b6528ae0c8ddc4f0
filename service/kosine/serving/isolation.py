"""One failing row never fails its mates: a batch that raises is halved until the culprit stands alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ("RowsFound", "Search", "search_isolated")

Search = Callable[..., tuple[NDArray[np.int32], NDArray[np.float32]]]
"""(queries [B, dim], k), and behind these a list of B filters where there are any."""


@dataclass(frozen=True, slots=True, eq=False)
class RowsFound:
    """Answers of the rows that worked, and the exception of each that did not, by position in the batch."""

    rows: NDArray[np.int32]
    scores: NDArray[np.float32]
    failed: dict[int, Exception]

    def spread(self, places: list[int], *, rows: int, failed: dict[int, Exception]) -> RowsFound:
        """The same as the `places` of a batch of `rows`, where others have `failed`; those hold zeros."""
        numbers = np.zeros((rows, self.rows.shape[1]), np.int32)
        scores = np.zeros((rows, self.rows.shape[1]), np.float32)
        numbers[places], scores[places] = self.rows, self.scores
        mine = {places[position]: error for position, error in self.failed.items()}
        return RowsFound(rows=numbers, scores=scores, failed=failed | mine)


def search_isolated(
    search: Search, queries: NDArray[np.float32], k: int, *filters: Sequence[Any], width: int
) -> RowsFound:
    """Search all rows; on an exception search the halves, each by itself.

    `width` is the number of results per row, `min(k, rows of the index)`; failed rows hold zeros.
    At most 2B-1 calls, and only as many as it takes when few rows are to blame.
    """
    try:
        found, scores = search(queries, k, *filters)
    except Exception as error:  # noqa: BLE001  whatever the engine raises belongs to these rows alone
        return _halve(search, queries, k, *filters, width=width, error=error)
    return RowsFound(rows=found, scores=scores, failed={})


def _halve(
    search: Search,
    queries: NDArray[np.float32],
    k: int,
    *filters: Sequence[Any],
    width: int,
    error: Exception,
) -> RowsFound:
    count = len(queries)
    if count == 1:
        return RowsFound(
            rows=np.zeros((1, width), np.int32), scores=np.zeros((1, width), np.float32), failed={0: error}
        )
    half = count // 2
    left = search_isolated(search, queries[:half], k, *(each[:half] for each in filters), width=width)
    right = search_isolated(search, queries[half:], k, *(each[half:] for each in filters), width=width)
    return RowsFound(
        rows=np.concatenate((left.rows, right.rows)),
        scores=np.concatenate((left.scores, right.scores)),
        failed=left.failed | {half + position: reason for position, reason in right.failed.items()},
    )
