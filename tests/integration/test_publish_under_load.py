"""Pairs are published again and again while callers keep calling: ids and vectors are never mixed (N10)."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from kosine.publishing.local import LocalTarget
from kosine.publishing.publication import Publication, prepare, publish
from tests.kit.answered import Answered
from tests.kit.process import kosine_serve
from tests.kit.swap_oracle import generation

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ROWS, DIM, K = 2000, 16, 10
CALLERS = 4
STRIDE = 1_000_000
CONFIG = """
defaults: {max_k: 10, refresh: {settle: 50ms, interval: 1s}}
indexes: {items: {uri: served/items.json}}
"""


@dataclass(slots=True, eq=False)
class Pairs:
    """Generation g: rows drawn from g, and ids g * STRIDE + a permutation that is drawn from g as well.

    Length and values never tell a mixed pair; only the order does, which no check of a load could see.
    """

    folder: Path
    queries: NDArray[np.float32]
    published: int = 0
    answers: list[list[list[int]]] = field(default_factory=list)
    """[generation][query] ids, best first."""

    def publish(self) -> None:
        """The next generation."""
        seed = len(self.answers)
        rows = generation(seed, rows=ROWS, dim=DIM)
        ids = seed * STRIDE + np.random.default_rng(seed).permutation(ROWS)
        unit = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        best = np.argsort(-(self.queries.astype(np.float64) @ unit.T), axis=1, kind="stable")[:, :K]
        self.answers.append(ids[best].tolist())
        np.save(self.folder / "rows.npy", rows)
        np.save(self.folder / "ids.npy", ids)
        prepared = prepare(
            str(self.folder / "rows.npy"),
            ids=str(self.folder / "ids.npy"),
            masks={},
            name="items",
            layout="rows",
            dim=DIM,
            metric="cosine",
            progress=_silent,
        )
        assert isinstance(prepared, Publication)
        target = LocalTarget(self.folder / "served")
        for _ in publish(prepared, target, keep=2, dry_run=False, progress=_silent):
            # Longer than the service lets a change settle: half of a pair would be served now.
            time.sleep(0 if seed % 5 else 0.15)
        self.published = seed


def _silent(_doing: str, _done: int, _total: int) -> None:
    """No bar."""


async def call(
    url: str, pairs: Pairs, answered: Answered, stop: asyncio.Event
) -> list[tuple[int, int, list[int]]]:
    """One caller: (status, query, ids) of every answer, in order."""
    seen: list[tuple[int, int, list[int]]] = []
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        while not stop.is_set():
            query = len(seen) % len(pairs.queries)
            body: dict[str, Any] = {"embedding": pairs.queries[query].tolist(), "k": K}
            response = await client.post("/indexes/items/cos", json=body)
            ids = [id_ for id_, _ in response.json().get("result", ())]
            if ids:
                answered.note(ids[0] // STRIDE)
            seen.append((response.status_code, query, ids))
    return seen


async def swap(url: str, pairs: Pairs, answered: Answered, *, times: int) -> None:
    """Publish generation after generation, each when somebody was answered by the one before."""
    async with httpx.AsyncClient(base_url=url) as client:
        version = (await client.get("/indexes/items")).json()["version"]
        await answered.until(0)
        for number in range(1, times + 1):
            await asyncio.to_thread(pairs.publish)
            deadline = time.monotonic() + 20
            while (now := (await client.get("/indexes/items")).json())["version"] == version:
                assert time.monotonic() < deadline, f"generation {pairs.published}: {now}"
                await asyncio.sleep(0.01)
            version = now["version"]
            await answered.until(number)


@pytest.mark.parametrize("publications", [6, pytest.param(50, marks=pytest.mark.slow)])
async def test_ids_and_vectors_of_an_answer_are_of_one_publication(tmp_path: Path, publications: int) -> None:
    """Publications under load: 0 failed, 0 mixed, 0 that went back."""
    queries = np.random.default_rng(7).standard_normal((64, DIM), dtype=np.float32)
    (tmp_path / "served").mkdir()
    (tmp_path / "kosine.yaml").write_text(CONFIG)
    pairs = Pairs(tmp_path, queries)
    await asyncio.to_thread(pairs.publish)
    with kosine_serve("--config", tmp_path / "kosine.yaml") as service:
        await asyncio.to_thread(service.wait_ready)
        answered, stop = Answered(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            callers = [group.create_task(call(service.url, pairs, answered, stop)) for _ in range(CALLERS)]
            try:
                await swap(service.url, pairs, answered, times=publications)
            finally:
                stop.set()

    answers = [answer for caller in callers for answer in caller.result()]
    assert {200} == {status for status, _, _ in answers}
    mixed = [ids for _, query, ids in answers if pairs.answers[ids[0] // STRIDE][query] != ids]
    assert [] == mixed[:3]
    for caller in callers:
        generations = [ids[0] // STRIDE for _, _, ids in caller.result()]
        assert sorted(generations) == generations
    assert publications + 1 == len({ids[0] // STRIDE for _, _, ids in answers})
