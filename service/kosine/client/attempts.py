"""How often a call is sent and how long it may take in all. Decides, never waits.

Each attempt tells the service how much time is left, so that it computes nothing that nobody waits for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kosine.client.errors import wait_asked_for
from kosine.errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from kosine.retries import RetryPolicy

__all__ = ("Attempts",)


class Attempts:
    """The attempts of one call that may take `timeout` seconds in all."""

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        timeout: float,
        clock: Callable[[], float],
        draw: Callable[[], float],
    ) -> None:
        self._policy = policy
        self._timeout = timeout
        self._clock = clock
        self._draw = draw
        self._deadline = clock() + timeout
        self._failures = 0

    def left(self) -> float:
        """Seconds for the next attempt. Raises DeadlineExceeded where there are none."""
        left = self._deadline - self._clock()
        if left <= 0:
            raise self.late()
        return left

    def headers(self) -> dict[str, str]:
        """What tells the service how long its answer is waited for."""
        return {"X-Request-Timeout-Ms": str(max(1, int(self.left() * 1000)))}

    def pause(self, error: Exception) -> float:
        """Seconds to wait before the next attempt. Raises `error` where there is to be none."""
        self._failures += 1
        again, after = wait_asked_for(error)
        left = self._deadline - self._clock()
        delay = self._policy.delay(self._failures, after=after, left=left, draw=self._draw())
        if not again or delay is None:
            raise error
        return delay

    def late(self) -> DeadlineExceeded:
        """The time is up, and the service has not said so itself."""
        return DeadlineExceeded(
            f"no answer within {self._timeout:g} s; allow more time or ask less at once",
            timeout=self._timeout,
        )
