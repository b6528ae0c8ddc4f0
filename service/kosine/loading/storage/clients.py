"""The one client of a store, and its replacement when its credentials are refused.

Credentials rotate while the process lives (N24). A client keeps what it found when it was made, so a refusal
(401, 403) retires it: the next request makes another, which looks them up again.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from kosine.loading.storage.errors import Kind, StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

__all__ = ("Clients",)

C = TypeVar("C")


@dataclass(slots=True, eq=False)
class _Held(Generic[C]):
    client: C
    close: Callable[[], Awaitable[None]]
    users: int = 0
    worked: bool = False


class Clients(Generic[C]):
    """Hands out the client; a retired one is closed when its last request ends. Used on one loop."""

    def __init__(self, make: Callable[[], Awaitable[tuple[C, Callable[[], Awaitable[None]]]]]) -> None:
        self._make = make
        self._making = asyncio.Lock()
        self._held: _Held[C] | None = None

    @property
    def worked(self) -> bool:
        """Whether the store has answered the client of now; one that it refuses then has expired."""
        return self._held is not None and self._held.worked

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[C]:
        """The client for one request."""
        async with self._making:
            if self._held is None:
                self._held = _Held(*await self._make())
            held = self._held
            held.users += 1
        try:
            yield held.client
            held.worked = True
        except StoreError as error:
            if error.kind is Kind.FORBIDDEN and self._held is held:
                self._held = None
            raise
        finally:
            held.users -= 1
            if not held.users and self._held is not held:
                await held.close()

    async def close(self) -> None:
        """Close it; requests must have ended."""
        held, self._held = self._held, None
        if held is not None and not held.users:
            await held.close()
