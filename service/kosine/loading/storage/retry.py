"""Requests to a store, tried again as `kosine.retries` decides.

Where the time left is too short, the failure is told at once: the next poll asks again, and waiting for it
would only hold a loader thread.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from kosine.loading.storage.errors import Kind, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kosine.retries import RetryPolicy

__all__ = ("with_retries",)

T = TypeVar("T")


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
