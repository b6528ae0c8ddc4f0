"""Polls of many replicas, counted in virtual time: they spread, and their number is what was configured."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from contextlib import AsyncExitStack

import pytest
from structlog.testing import capture_logs

from kosine.errors import LoadCode, LoadError, Stage
from tests.kit.loads import ScriptedLoader, virtual_reloader

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

REPLICAS, MINUTES, INTERVAL = 100, 10, 30.0


async def looks_of(loaders: list[ScriptedLoader]) -> list[float]:
    """When the replicas, all started at one moment, ask the store within ten minutes."""
    async with AsyncExitStack() as running:
        running.enter_context(capture_logs())
        for number, loader in enumerate(loaders):
            await running.enter_async_context(virtual_reloader(loader=loader, rng=random.Random(number)))
        await asyncio.sleep(60 * MINUTES)
    return sorted(at for loader in loaders for at in loader.looks)


async def test_replicas_that_start_together_do_not_stay_together() -> None:
    """Per minute each asks twice or three times; after five minutes no second sees a fifth of them."""
    looks = await looks_of([ScriptedLoader() for _ in range(REPLICAS)])
    steady = [at for at in looks if at > INTERVAL / 2]  # loads look twice, to see the source rest
    per_minute = Counter(int(at // 60) for at in steady)
    assert all(per_minute[minute] <= REPLICAS * 60 / (0.9 * INTERVAL) for minute in range(MINUTES))
    assert abs(len(steady) - REPLICAS * (60 * MINUTES / INTERVAL - 0.5)) < 0.05 * len(steady)
    per_second = Counter(int(at) for at in steady if at > 300)
    assert max(per_second.values()) <= REPLICAS / 5


async def test_a_store_that_fails_is_asked_no_more_often_than_one_that_answers() -> None:
    """Back-off goes up to the poll, not below it: an outage does not multiply requests for long."""
    down = LoadError(LoadCode.SOURCE_UNREADABLE, "503", stage=Stage.FINGERPRINT)
    looks = await looks_of([ScriptedLoader(look_error=down) for _ in range(REPLICAS)])
    late = [at for at in looks if at > 120]
    per_minute = Counter(int(at // 60) for at in late)
    assert max(per_minute.values()) <= REPLICAS * 60 / (0.9 * INTERVAL)


async def test_no_index_is_looked_at_twice_within_an_interval() -> None:
    """Between two looks of a source at rest lies the interval, less its jitter."""
    loader = ScriptedLoader()
    looks = await looks_of([loader])
    gaps = [after - before for before, after in itertools.pairwise(looks[2:])]
    assert min(gaps) >= 0.9 * INTERVAL - 0.01
    assert max(gaps) <= 1.1 * INTERVAL + 0.01
