"""Stops asking an engine that fails on everything, and lets one query through now and then to find out.

Pure apart from its own counters: the caller brings the clock. Closed -> open after `threshold` batches in a
row without one good row; open -> one trial every `retry_after` seconds; a good row closes it.
"""

from __future__ import annotations

__all__ = ("Breaker",)


class Breaker:
    """Counts batches that failed whole."""

    __slots__ = ("_failures", "_next_trial", "retry_after", "threshold")

    def __init__(self, *, threshold: int = 3, retry_after: float = 1.0) -> None:
        self.threshold = threshold
        self.retry_after = retry_after
        self._failures = 0
        self._next_trial = 0.0

    @property
    def is_open(self) -> bool:
        """Whether queries are refused."""
        return self._failures >= self.threshold

    def allows(self, now: float) -> bool:
        """Whether a query may pass at `now`; an open breaker's trial is used up by asking."""
        if not self.is_open:
            return True
        if now < self._next_trial:
            return False
        self._next_trial = now + self.retry_after
        return True

    def record(self, *, good: bool, now: float) -> None:
        """Take note of a batch; `good` where at least one of its rows was answered."""
        if good:
            self._failures = 0
            return
        self._failures += 1
        if self._failures == self.threshold:
            self._next_trial = now + self.retry_after
