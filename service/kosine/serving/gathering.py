"""The rows of one request, spread over the batches of one version, and the one future that waits for all.

A task and a future for each of hundreds of rows would cost more than searching them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from kosine.serving.batch import Answer

__all__ = ("Gathered", "RowOutcome")


class Gathered:
    """Collects `count` outcomes; `future` gets them in order once the last is there."""

    __slots__ = ("_missing", "future", "outcomes")

    def __init__(self, count: int, future: asyncio.Future[list[Answer | Exception]]) -> None:
        self.future = future
        self.outcomes: list[Answer | Exception | None] = [None] * count
        self._missing = count

    def rows(self) -> list[RowOutcome]:
        """Where the outcome of each row goes."""
        return [RowOutcome(self, row) for row in range(len(self.outcomes))]

    def settle(self, row: int, outcome: Answer | Exception) -> None:
        """The outcome of one row, told once."""
        self.outcomes[row] = outcome
        self._missing -= 1
        if not self._missing and not self.future.done():
            self.future.set_result([each for each in self.outcomes if each is not None])


class RowOutcome:
    """What a batch knows of the future of one row: the part of `asyncio.Future` that it uses."""

    __slots__ = ("_gathered", "_row")

    def __init__(self, gathered: Gathered, row: int) -> None:
        self._gathered = gathered
        self._row = row

    def done(self) -> bool:
        """Whether nobody waits for this row any more."""
        return self._gathered.future.done() or self._gathered.outcomes[self._row] is not None

    def set_result(self, answer: Answer) -> None:
        """It was answered."""
        self._gathered.settle(self._row, answer)

    def set_exception(self, error: Exception) -> None:
        """It failed."""
        self._gathered.settle(self._row, error)
