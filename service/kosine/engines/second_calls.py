"""What it costs to try a cheap way first, where some queries must then be searched again. Pure."""

from __future__ import annotations

__all__ = ("SecondCalls",)

_AGAIN = 0.15
"""What a second call costs of the first, however few queries are in it: about one of 1 beside one of 64."""
_WEIGHT = 1 / 16
_PROBE = 64
"""Calls by the other way after which the cheap one is tried again: callers change."""


class SecondCalls:
    """What they have cost of the first ones of late. Of one engine, used by its device thread."""

    def __init__(self, *, too_much: float) -> None:
        self.cost = 0.0
        self._too_much = too_much
        self._calls = 0

    def worth_risking(self) -> bool:
        """Whether they cost less than `too_much`; where not, now and then all the same."""
        if self.cost < self._too_much:
            return True
        self._calls += 1
        return self._calls % _PROBE == 0

    def note(self, *, again: int, queries: int) -> None:
        """Of so many queries, so many had to be searched again."""
        cost = _AGAIN + again / queries if again else 0.0
        self.cost += _WEIGHT * (cost - self.cost)

    def forget(self) -> None:
        """What they cost was of a first way that is no longer taken."""
        self.cost = 0.0
