"""A service of one index in S3, below HTTP and TensorFlow, and callers that check every answer.

An object of generation g is made from g alone, so whoever knows the digest of the version that answered
knows what the answer has to be: another one is torn, or of bytes that nobody wrote.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from kosine.loading.storage.remote import Transfer
from kosine.loading.storage.stores import Stores
from kosine.retries import RetryPolicy
from kosine.serving.query import to_query
from kosine.settings import S3Settings, StoresSettings
from kosine.source_uri import COMMAND_LINE
from kosine.units import Duration
from tests.kit.loads import index_settings, rig
from tests.kit.npy_files import npy_bytes, unit_rows
from tests.kit.serving import never

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from kosine.loading.admission import Memory
    from tests.kit.loads import Rig

__all__ = ("Callers", "Generation", "generation", "store_service")

URI = "s3://vectors/items.npy"
_DIM = 16
_ROWS = (600, 900)
"""Generations take turns in size."""
_QUERY = np.eye(_DIM)[0]


@dataclass(frozen=True, slots=True)
class Generation:
    """One object, and what a version of it answers."""

    content: bytes
    digest: str
    best: int
    score: float


@cache
def generation(number: int) -> Generation:
    """Object number `number`."""
    rows = unit_rows(_ROWS[number % 2], _DIM, seed=number).astype(np.float32)
    content = npy_bytes(rows)
    decoding = json.dumps(["rows", _DIM, "cosine"]).encode()
    scores = rows.astype(np.float64) @ _QUERY
    return Generation(
        content=content,
        digest=hashlib.sha256(decoding + hashlib.sha256(content).digest()).hexdigest(),
        best=int(scores.argmax()),
        score=float(scores.max()),
    )


@dataclass(slots=True, eq=False)
class Callers:
    """Ask all the time; `failed` and `wrong` say what they should not have met."""

    running: Rig
    asked: int = 0
    failed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def asking(self, count: int, known: range) -> AsyncIterator[None]:
        """`count` callers at once, while any of the generations `known` may serve."""
        expected = {one.digest: one for one in map(generation, known)}
        tasks = [asyncio.create_task(self._ask(expected)) for _ in range(count)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, expected: dict[str, Generation]) -> None:
        while True:
            self.asked += 1
            try:
                self._check(*await self._answer(), expected)
            except Exception as error:  # noqa: BLE001  whatever it is, a caller must not meet it
                self.failed.append(repr(error))
            await asyncio.sleep(0.005)

    async def _answer(self) -> tuple[str, int, float]:
        deadline = asyncio.get_running_loop().time() + 30
        with self.running.registry.lease("items") as version:
            query = to_query(_QUERY.tolist(), dim=_DIM, metric="cosine")
            answer = await version.batcher.search(query, 1, deadline=deadline, abandoned=never)
            return version.info.digest, int(answer.ids[0]), float(answer.scores[0])

    def _check(self, digest: str, best: int, score: float, expected: dict[str, Generation]) -> None:
        one = expected.get(digest)
        if one is None or best != one.best or abs(score - one.score) > 1e-6:
            self.wrong.append(f"{digest[:16]}: {best} {score}")


@asynccontextmanager
async def store_service(
    endpoint: str,
    *,
    interval: float,
    idle_timeout: float = 2.0,
    within: float = 4.0,
    attempts: int = 3,
    block_bytes: int = 16 * 2**10,
    probe: Callable[[], Memory] | None = None,
    **changes: Any,
) -> AsyncIterator[Rig]:
    """The service, polled every `interval` seconds; credentials come from the environment.

    A request may take `within` seconds and so many `attempts`; `changes` are of the index.
    """
    settings = StoresSettings(
        s3=S3Settings(endpoint_url=endpoint, region="us-east-1"), idle_timeout=Duration(idle_timeout)
    )
    transfer = Transfer(
        draw=random.Random(1).random,
        parallel=3,
        block_bytes=block_bytes,
        look_within=within,
        range_within=within,
        policy=RetryPolicy(attempts=attempts, first=0.02),
    )
    stores = Stores(settings, policy=COMMAND_LINE, transfer=transfer)
    try:
        async with rig(storage=stores, probe=probe) as running:
            await running.apply(items=index_settings(URI, interval=interval, **changes))
            yield running
    finally:
        await asyncio.to_thread(stores.close)
