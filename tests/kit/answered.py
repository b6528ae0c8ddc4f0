"""What callers were answered so far, for whoever may not go on before somebody was."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable


class Answered:
    """What at least one caller was answered by: versions, generations. Of one event loop."""

    def __init__(self) -> None:
        self._seen: defaultdict[Hashable, asyncio.Event] = defaultdict(asyncio.Event)

    def note(self, by: Hashable) -> None:
        """A caller was answered by it."""
        self._seen[by].set()

    async def until(self, by: Hashable, *, within: float = 30) -> None:
        """Wait until a caller was; TimeoutError after `within` seconds."""
        async with asyncio.timeout(within):
            await self._seen[by].wait()
