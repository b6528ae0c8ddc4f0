"""Rows of a batch that share no top-k with the others: pages, and scores of given items.

They are on the device thread with their batch, and each fails alone like every row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kosine.engines.pages import Page, PageQuery
from kosine.errors import NotFinite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from kosine.engines.engine import Engine
    from kosine.serving.options import RowOptions

    Asked = Mapping[int, tuple[NDArray[np.float32], int, RowOptions]]

__all__ = ("answer_apart", "overflow")


def answer_apart(engine: Engine, asked: Asked) -> dict[int, Page | Exception]:
    """What each row finds, or why it failed; `asked` are query [dim], k and options by position."""
    found = _pages(engine, {row: each for row, each in asked.items() if each[2].paged})
    for row, (query, _, options) in asked.items():
        if options.scored is not None:
            found[row] = _scores(engine, query, options.scored)
    return {row: _checked(outcome) for row, outcome in found.items()}


def overflow() -> NotFinite:
    """Of a query whose scores are no numbers."""
    return NotFinite("a score of this query overflows float32; scale the query down")


def _pages(engine: Engine, asked: Asked) -> dict[int, Page | Exception]:
    """All in one call; where that fails each by itself."""
    if not asked:
        return {}
    queries = np.stack([query for query, _, _ in asked.values()])
    wanted = [
        PageQuery(k=k, after=options.after, filter=options.filter, min_score=options.min_score)
        for _, k, options in asked.values()
    ]
    try:
        return dict(zip(asked, engine.search_after(queries, wanted), strict=True))
    except Exception as error:  # noqa: BLE001  whatever the engine raises belongs to these rows alone
        if len(asked) == 1:
            return dict.fromkeys(asked, error)
        return {row: _pages(engine, {row: each})[row] for row, each in asked.items()}


def _scores(engine: Engine, query: NDArray[np.float32], rows: NDArray[np.int32]) -> Page | Exception:
    try:
        return Page(rows, engine.score(query, rows), more=False)
    except Exception as error:  # noqa: BLE001  the same
        return error


def _checked(outcome: Page | Exception) -> Page | Exception:
    unknown = isinstance(outcome, Page) and np.isnan(outcome.scores).any()
    return overflow() if unknown else outcome
