"""What a caller wants found and what was found: one model for every body, whatever it was encoded as.

Knows no transport. A body of JSON, of raw floats or of another protocol becomes a `SearchRequest`, is
answered by `kosine.serving.searching.search`, and its `SearchResult` is encoded as the caller likes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from kosine.errors import RequestError
    from kosine.serving.batch import Answer

__all__ = ("SearchRequest", "SearchResult")


class SearchRequest(msgspec.Struct, kw_only=True):
    """One request, as it was sent: nothing in it has been held against a version yet.

    A Struct because one is made for every query, and a dataclass takes seven times as long.
    """

    vectors: Sequence[list[float] | NDArray[np.float32]] | NDArray[np.float32]
    """One query each, or float32 [n, dim]; a float32 [n * dim] is cut by the dimension of the index."""
    many: bool | None = False
    """Whether the answer is a list of results, however many there are, or the result of the only query.

    None: of float32 [n * dim], as many as they are.
    """
    k: int | None = None
    """None: as many as the index answers by default."""


class SearchResult(msgspec.Struct, kw_only=True):
    """The outcome of each query, in the order of the request."""

    version: str
    outcomes: list[Answer | RequestError]
    """A refusal stands only where the caller wanted the others answered."""
    many: bool = False

    @property
    def errors(self) -> dict[int, RequestError]:
        """Refused queries by their position."""
        return {row: outcome for row, outcome in enumerate(self.outcomes) if isinstance(outcome, Exception)}
