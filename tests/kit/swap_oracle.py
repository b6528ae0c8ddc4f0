"""Judges answers that were given while their index was being replaced.

Generation g of the file is drawn from seed g, so the ten best rows of a query tell which generation answered;
an answer mixed of two matches none. Pure, so that it can be shown to catch what it must catch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ("Observation", "SwapOracle", "generation")


def generation(seed: int, *, rows: int, dim: int) -> NDArray[np.float32]:
    """The file that the writer publishes as generation `seed`."""
    return np.random.default_rng(seed).standard_normal((rows, dim), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Observation:
    """One answer, as one connection saw it."""

    connection: int
    query: int
    status: int
    version: str
    ids: tuple[int, ...]
    newest_at_send: int
    """Newest generation known to be served when the query was sent: an older one must not answer."""
    newest_at_receive: int
    """Newest generation written when the answer came: a newer one cannot have answered."""


class SwapOracle:
    """Knows the right answer of every query in every generation."""

    def __init__(self, queries: NDArray[np.float32], *, k: int) -> None:
        self._queries = queries.astype(np.float64)
        self._k = k
        self._answers: dict[tuple[int, tuple[int, ...]], int] = {}

    def learn(self, seed: int, vectors: NDArray[np.float32]) -> None:
        """Work out what generation `seed` answers."""
        rows = vectors.astype(np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        best = np.argsort(-(self._queries @ rows.T), axis=1, kind="stable")[:, : self._k]
        for query, ids in enumerate(best.tolist()):
            self._answers[query, tuple(ids)] = seed

    def violations(self, observations: Sequence[Observation]) -> list[str]:
        """What is wrong, in words; empty when every law held. Observations are in order per connection."""
        wrong: list[str] = []
        newest: dict[int, int] = {}
        labels: dict[str, int] = {}
        for seen in observations:
            if seen.status != 200:
                wrong.append(f"failed: status {seen.status}")
                continue
            answered = self._answers.get((seen.query, seen.ids))
            if answered is None:
                wrong.append(f"mixed: no generation answers query {seen.query} with {seen.ids}")
                continue
            if labels.setdefault(seen.version, answered) != answered:
                wrong.append(f"mislabelled: {seen.version} names {labels[seen.version]} and {answered}")
            if answered < newest.get(seen.connection, answered):
                wrong.append(f"went back: {newest[seen.connection]} then {answered}")
            if not seen.newest_at_send <= answered <= seen.newest_at_receive:
                wrong.append(f"stale: {answered} outside {seen.newest_at_send}..{seen.newest_at_receive}")
            newest[seen.connection] = max(answered, newest.get(seen.connection, answered))
        return wrong
