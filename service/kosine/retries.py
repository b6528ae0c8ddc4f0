"""When a request that failed is sent again: capped exponential back-off with full jitter, within a deadline.

A server that names a time (Retry-After) gets it, and jitter on top, so that callers it turned away together
do not come back together. Where the time left is too short for that, the failure is told at once: waiting
for it would help nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ("RetryPolicy", "retry_after")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """`attempts` failures in a row are the end; times are in seconds."""

    attempts: int = 5
    first: float = 0.2
    cap: float = 10.0

    def delay(self, failures: int, *, after: float | None, left: float, draw: float) -> float | None:
        """How long to wait after so many failures, with `left` seconds to go; None: give up.

        `draw` is uniform in [0, 1).

        >>> policy = RetryPolicy(attempts=4, first=0.5, cap=2.0)
        >>> [policy.delay(n, after=None, left=60, draw=1.0) for n in (1, 2, 3, 4)]
        [0.5, 1.0, 2.0, None]
        >>> policy.delay(1, after=7.0, left=60, draw=0.5), policy.delay(1, after=7.0, left=5, draw=0.5)
        (7.25, None)
        """
        if failures >= self.attempts:
            return None
        jitter = draw * min(self.cap, self.first * 2.0 ** min(failures - 1, 30))
        delay = jitter if after is None else after + jitter
        return delay if delay < left else None


def retry_after(text: str | None, *, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for; None where there is none or it is not one.

    >>> from datetime import UTC, datetime
    >>> now = datetime(2026, 1, 1, tzinfo=UTC)
    >>> retry_after("7", now=now), retry_after("Thu, 01 Jan 2026 00:00:05 GMT", now=now)
    (7.0, 5.0)
    >>> retry_after("-1", now=now), retry_after("soon", now=now), retry_after(None, now=now)
    (None, None, None)
    """
    if text is None:
        return None
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, (parsedate_to_datetime(text) - now).total_seconds())
    except (TypeError, ValueError):
        return None
