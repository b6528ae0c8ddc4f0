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
    from kosine.serving.item_ids import Ids
    from kosine.serving.query import Vector

__all__ = ("SearchOptions", "SearchRequest", "SearchResult")


class SearchOptions(msgspec.Struct, kw_only=True, frozen=True):
    """What a plain query does without. Ids are those of the index: row numbers, or as in its ids file."""

    exclude: Ids = ()
    """Never found; ids that the index does not hold are none of its items anyway."""
    include: Ids | None = None
    """Only these can be found."""
    mask: str | None = None
    """Only items for which the mask of that name is true."""
    not_mask: str | None = None
    """Only items for which it is false."""
    include_self: bool = False
    """Whether an item that is searched by its id can be found."""
    itself: bool = False
    """Whether it is all that can be found."""
    min_score: float | None = None
    after: str | None = None
    """The cursor behind which a page begins; empty: the first page. None: no pages are wanted."""
    score: Sequence[int | str] | None = None
    """Instead of a search, the scores of these."""
    with_embeddings: bool = False
    """Whether the vectors of what is found are answered, too: for cosine with length 1."""


class SearchRequest(msgspec.Struct, kw_only=True):
    """One request, as it was sent: nothing in it has been held against a version yet.

    A Struct because one is made for every query, and a dataclass takes seven times as long.
    """

    vectors: Sequence[Vector] | NDArray[np.float32] = ()
    """One query each, or float32 [n, dim]; a float32 [n * dim] is cut by the dimension of the index."""
    ids: Sequence[int | str] | None = None
    """Instead of vectors: items whose vectors are the queries."""
    ids_as_text: bool = False
    """Whether ids, those of `options`, too, are written as text whatever their type, as in a URL."""
    many: bool | None = False
    """Whether the answer is a list of results, however many there are, or the result of the only query.

    None: of float32 [n * dim], as many as they are.
    """
    k: int | None = None
    """None: as many as the index answers by default."""
    options: SearchOptions | None = None


class SearchResult(msgspec.Struct, kw_only=True):
    """The outcome of each query, in the order of the request."""

    version: str
    outcomes: list[Answer | RequestError]
    """A refusal stands only where the caller wanted the others answered."""
    many: bool = False
    next: str | None = None
    """Of a page: the cursor of the one behind it, empty where nothing is behind it. None: no page."""

    @property
    def errors(self) -> dict[int, RequestError]:
        """Refused queries by their position."""
        return {row: outcome for row, outcome in enumerate(self.outcomes) if isinstance(outcome, Exception)}
