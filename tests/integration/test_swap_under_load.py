"""A file is replaced again and again while callers keep calling, over real sockets and the real engine."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from tests.kit.answered import Answered
from tests.kit.process import kosine_serve
from tests.kit.swap_oracle import Observation, SwapOracle, generation

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.process import ServiceProcess

ROWS, DIM, K = 3000, 24, 10
CONNECTIONS = 16

CONFIG = """
defaults: {max_k: 10, refresh: {settle: 50ms, interval: 1s}}
indexes: {items: {uri: items.npy}}
"""


class Publisher:
    """Writes generation after generation, each when a caller was answered by the one before."""

    def __init__(self, path: Path, oracle: SwapOracle) -> None:
        self._path = path
        self._oracle = oracle
        self.written = 0
        self.served = 0
        self.answered = Answered()

    def publish(self) -> None:
        """Write to a temporary file, then rename."""
        vectors = generation(self.written + 1, rows=ROWS, dim=DIM)
        self._oracle.learn(self.written + 1, vectors)
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.save(file, vectors)
            file.flush()
            os.fsync(file.fileno())
        self.written += 1
        temporary.replace(self._path)

    async def run(self, client: httpx.AsyncClient, *, swaps: int) -> None:
        """Publish generations, and note each as served once the index says so."""
        version = (await client.get("/indexes/items")).json()["version"]
        await self.answered.until(version)
        for _ in range(swaps):
            await asyncio.to_thread(self.publish)
            deadline = time.monotonic() + 20
            while (now := (await client.get("/indexes/items")).json()["version"]) == version:
                assert time.monotonic() < deadline, f"generation {self.written} was not loaded"
                await asyncio.sleep(0.01)
            version = now
            self.served = self.written
            await self.answered.until(version)


async def call(
    service: ServiceProcess,
    publisher: Publisher,
    queries: list[list[float]],
    number: int,
    stop: asyncio.Event,
) -> list[Observation]:
    """One client on one connection, asking without a pause."""
    seen: list[Observation] = []
    async with httpx.AsyncClient(base_url=service.url, limits=httpx.Limits(max_connections=1)) as client:
        while not stop.is_set():
            query = len(seen) % len(queries)
            newest_at_send = publisher.served
            response = await client.post(
                "/indexes/items/cos", json={"embedding": queries[query], "k": K}, timeout=30
            )
            body = response.json()
            publisher.answered.note(response.headers.get("kosine-version", ""))
            seen.append(
                Observation(
                    connection=number,
                    query=query,
                    status=response.status_code,
                    version=response.headers.get("kosine-version", ""),
                    ids=tuple(row for row, _ in body.get("result", ())),
                    newest_at_send=newest_at_send,
                    newest_at_receive=publisher.written,
                )
            )
    return seen


@pytest.mark.parametrize("swaps", [5, pytest.param(50, marks=pytest.mark.slow)])
async def test_every_answer_belongs_to_exactly_one_version(tmp_path: Path, swaps: int) -> None:
    """Law 1, G1, N20: swaps under load: 0 failed, 0 mixed, 0 mislabelled, 0 stale, 0 that went back."""
    queries = np.random.default_rng(7).standard_normal((64, DIM), dtype=np.float32)
    oracle = SwapOracle(queries, k=K)
    publisher = Publisher(tmp_path / "items.npy", oracle)
    publisher.publish()
    publisher.served = 1
    (tmp_path / "kosine.yaml").write_text(CONFIG)

    with kosine_serve("--config", tmp_path / "kosine.yaml") as service:
        await asyncio.to_thread(service.wait_ready)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group, httpx.AsyncClient(base_url=service.url) as client:
            callers = [
                group.create_task(call(service, publisher, queries.tolist(), number, stop))
                for number in range(CONNECTIONS)
            ]
            try:
                await publisher.run(client, swaps=swaps)
            finally:
                stop.set()
            await asyncio.wait(callers)

    observations = [seen for caller in callers for seen in caller.result()]
    assert [] == oracle.violations(observations)[:5]
    assert swaps + 1 == len({seen.version for seen in observations})
    assert len(observations) > 10 * swaps
