"""Asks the version that serves, as any caller would: through its queue, one item at a time.

Its engine is used by the device thread alone, so nobody else may look into it. One query in flight is what
one caller costs, and where callers fill the queue the canary waits behind them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np

from kosine.engines.filters import RowFilter
from kosine.errors import (
    Abandoned,
    DeadlineExceeded,
    EngineFailed,
    LoadCode,
    LoadError,
    NotFinite,
    Overloaded,
    ShuttingDown,
    Stage,
)
from kosine.serving.options import RowOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kosine.serving.item_ids import ItemIds
    from kosine.serving.version import Version

__all__ = ("LiveVersion",)

_DEADLINE = 10.0
_AGAIN_AFTER = 0.5


class LiveVersion:
    """The version that serves while its successor is loaded. Made on the loop, asked in other threads."""

    def __init__(self, version: Version, *, cancelled: Callable[[], bool]) -> None:
        self._version = version
        self._cancelled = cancelled
        self._loop = asyncio.get_running_loop()
        self.ids: ItemIds = version.ids
        self.rows = version.info.rows
        self.max_k = version.settings.max_k

    def neighbours(self, rows: Sequence[int], k: int) -> list[list[Any]]:
        """Ids of the `k` items nearest to the item in each row, itself left out, best first. Blocks.

        A refusal that passes, such as `overloaded`, is waited out: how long, the time limit of the load says.
        LoadError `cancelled` when nobody wants the load any more, or the index is being stopped.
        """
        return asyncio.run_coroutine_threadsafe(self._ask(rows, k), self._loop).result()

    async def _ask(self, rows: Sequence[int], k: int) -> list[list[Any]]:
        with self._version.lease():
            return [await self._neighbours(row, k) for row in rows]

    async def _neighbours(self, row: int, k: int) -> list[Any]:
        itself = RowFilter(excluded=np.array([row], np.int32))
        while not self._cancelled():
            try:
                answer = await self._version.batcher.search(
                    None,
                    k,
                    deadline=self._loop.time() + _DEADLINE,
                    abandoned=self._cancelled,
                    options=RowOptions(stored=row, filter=itself),
                )
            except NotFinite:  # a dot product of this item overflows: it has no order to compare
                return []
            except (Overloaded, EngineFailed, DeadlineExceeded):
                await asyncio.sleep(_AGAIN_AFTER)
            except (Abandoned, ShuttingDown):
                break
            else:
                return answer.ids
        raise LoadError(LoadCode.CANCELLED, "the load was given up", stage=Stage.CANARY)
