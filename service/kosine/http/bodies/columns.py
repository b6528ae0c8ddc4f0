"""An answer as columns, for formats that know arrays: npz and Arrow.

How many items a query found may differ from query to query, and so columns lie end to end: the items of query
`i` are those from `offsets[i]` to `offsets[i + 1]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, chain
from typing import TYPE_CHECKING

import numpy as np

from kosine.serving.batch import Answer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kosine.serving.request import SearchResult

__all__ = ("Columns", "columns_of")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """`n` queries."""

    ids: NDArray[np.int64] | NDArray[np.str_]
    """[total], int64 or text."""
    scores: NDArray[np.float32]
    """[total]"""
    offsets: NDArray[np.int64]
    """[n + 1]"""
    codes: tuple[str | None, ...]
    """[n]; why a query was refused."""
    embeddings: NDArray[np.float32] | None
    """[total, d], where they were asked for."""


def columns_of(result: SearchResult) -> Columns:
    """What was found, query by query."""
    answers = [outcome if isinstance(outcome, Answer) else None for outcome in result.outcomes]
    ids = [*chain.from_iterable(answer.ids for answer in answers if answer is not None)]
    scores = [*chain.from_iterable(answer.scores for answer in answers if answer is not None)]
    counts = (0 if answer is None else len(answer.ids) for answer in answers)
    embeddings = [answer.embeddings for answer in answers if answer is not None]
    return Columns(
        ids=np.array(ids) if ids else np.zeros(0, np.int64),
        scores=np.array(scores, np.float32),
        offsets=np.fromiter(accumulate(counts, initial=0), np.int64, len(answers) + 1),
        codes=tuple(None if isinstance(outcome, Answer) else outcome.code for outcome in result.outcomes),
        embeddings=np.concatenate(there) if (there := [e for e in embeddings if e is not None]) else None,
    )
