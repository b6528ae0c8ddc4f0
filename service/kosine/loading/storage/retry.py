"""When a failed request is sent again: capped exponential back-off with full jitter, within a deadline.

A store that names a time (Retry-After) gets it, and jitter on top, so that replicas it turned away together
do not come back together. Where the time left is too short for that, the failure is told at once: the next
poll asks again, and waiting for it would only hold a loader thread.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from kosine.loading.storage.errors import Kind, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ("RetryPolicy", "with_retries")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """`attempts` failures in a row without a byte of progress are the end; times are in seconds."""

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


async def with_retries(
    attempt: Callable[[], Awaitable[T]],
    *,
    policy: RetryPolicy,
    within: float,
    draw: Callable[[], float],
    progressed: Callable[[], bool] = lambda: False,
) -> T:
    """What `attempt()` returns, tried again while it raises StoreError TRANSIENT, in `within` seconds.

    `progressed()` says whether the attempt that failed got anything: then it does not count.
    """
    loop = asyncio.get_running_loop()
    deadline, failures = loop.time() + within, 0
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                return await attempt()
        except TimeoutError:
            raise StoreError(Kind.TRANSIENT, f"it took more than {within:g} s") from None
        except StoreError as error:
            if error.kind is not Kind.TRANSIENT:
                raise
            failures = 1 if progressed() else failures + 1
            left = deadline - loop.time()
            delay = policy.delay(failures, after=error.after, left=left, draw=draw())
            if delay is None:
                raise
            await asyncio.sleep(delay)
