"""One log line per failed request, and never so many that logging becomes the overload.

Each code has a token bucket of its own, and the next line of that code tells how many were left out. A defect
of the service is always logged.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import structlog

from kosine.http.problems import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from kosine.errors import RequestError

__all__ = ("FailureLog", "TokenBucket")

_SERVER_FAULT = 500


class TokenBucket:
    """`rate` tokens a second, at most `burst` at once; the caller brings the clock."""

    __slots__ = ("_at", "_tokens", "burst", "rate")

    def __init__(self, *, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._at = float("-inf")

    def take(self, now: float) -> bool:
        """Whether there was a token at `now` (seconds, not going back)."""
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class _Limit:
    """What was logged of one code lately."""

    __slots__ = ("bucket", "suppressed")

    def __init__(self, bucket: TokenBucket) -> None:
        self.bucket = bucket
        self.suppressed = 0


class FailureLog:
    """Where refusals are written."""

    def __init__(
        self, *, rate: float = 10.0, burst: float = 100.0, clock: Callable[[], float] = monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._limits: dict[str, _Limit] = {}
        self._log = structlog.get_logger("kosine.http")

    def write(
        self,
        error: RequestError,
        *,
        request_id: str,
        index: str | None = None,
        cause: BaseException | None = None,
    ) -> None:
        """Tell of one refusal; `cause` (a defect) is written with its traceback."""
        limit = self._limits.get(error.code)
        if limit is None:
            bucket = TokenBucket(rate=self._rate, burst=self._burst)
            limit = self._limits[error.code] = _Limit(bucket)
        if error.status != _SERVER_FAULT and not limit.bucket.take(self._clock()):
            limit.suppressed += 1
            return
        line = {
            "request_id": request_id,
            "index": None if index is None else printable(index),
            "code": error.code,
            "status": error.status,
            "detail": error.detail,
        }
        if limit.suppressed:
            line["suppressed"], limit.suppressed = limit.suppressed, 0
        if error.status < _SERVER_FAULT:
            self._log.info("request_refused", **line)
        elif cause is None:
            self._log.warning("request_failed", **line)
        else:
            self._log.error("request_failed", **line, exc_info=cause)
