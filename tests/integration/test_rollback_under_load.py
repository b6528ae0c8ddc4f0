"""The rollback of the runbook, as it is written there, while callers keep calling: the real engine, curl."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from tests.kit.answered import Answered
from tests.kit.process import eventually, kosine_serve
from tests.kit.swap_oracle import generation
from tests.kit.writers import publish

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.kit.process import ServiceProcess

ROWS, DIM, CALLERS = 3000, 24, 8

CONFIG = """
service: {cache_dir: copies}
defaults: {refresh: {settle: 50ms, interval: 1s}}
indexes: {items: {uri: items.npy}}
"""
OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def commands() -> Sequence[str]:
    """What the runbook says to type."""
    block = re.search(r"<!-- rollback -->\n```bash\n(.*?)```", OPERATIONS.read_text(), re.DOTALL)
    assert block is not None
    return block[1].splitlines()


def typed(service: ServiceProcess, command: str) -> dict[str, Any]:
    """What it prints."""
    environment = {**os.environ, "KOSINE": service.url}
    printed = subprocess.run(
        ["bash", "-euc", command], env=environment, check=True, stdout=subprocess.PIPE, timeout=60
    ).stdout
    answer: dict[str, Any] = json.loads(printed)
    return answer


def version(service: ServiceProcess) -> str:
    served: str = httpx.get(f"{service.url}/indexes/items").json()["version"]
    return served


async def call(
    service: ServiceProcess, query: list[float], answered: Answered, stop: asyncio.Event
) -> list[tuple[int, str, int, float]]:
    """One client, asking without a pause: status, version, best row and score of every answer."""
    seen = []
    async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
        while not stop.is_set():
            answer = await client.post("/indexes/items/cos", json={"embedding": query, "k": 1})
            (best, score), *_ = answer.json()["result"] if answer.status_code == 200 else [(-1, 0.0)]
            by = answer.headers.get("kosine-version", "")
            answered.note(by)
            seen.append((answer.status_code, by, best, score))
    return seen


@pytest.mark.slow
async def test_a_rollback_under_load_fails_nobody(tmp_path: Path) -> None:
    """Law 1: every answer is of exactly one of the two versions, and none is refused."""
    query = np.random.default_rng(7).standard_normal(DIM)
    path = tmp_path / "items.npy"
    files = [generation(number, rows=ROWS, dim=DIM) for number in (1, 2)]
    publish(path, files[0])
    (tmp_path / "kosine.yaml").write_text(CONFIG)
    back, show, follow = commands()
    with kosine_serve("--config", tmp_path / "kosine.yaml") as service:
        await asyncio.to_thread(service.wait_ready)
        first = version(service)
        publish(path, files[1])
        await asyncio.to_thread(
            eventually, lambda: version(service) != first, within=30, what="the second version"
        )
        second, answered, stop = version(service), Answered(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            callers = [
                group.create_task(call(service, query.tolist(), answered, stop)) for _ in range(CALLERS)
            ]
            try:
                await answered.until(second)
                told = await asyncio.to_thread(typed, service, back)
                assert {"outcome": "published", "version": first, "pinned": True} == told
                await asyncio.to_thread(
                    eventually,
                    lambda: typed(service, show)["pinned"]["waits"],
                    within=30,
                    what="the newer file is seen to wait",
                )
                assert first == typed(service, show)["version"]
                await answered.until(first)
                assert not (await asyncio.to_thread(typed, service, follow))["pinned"]
                await asyncio.to_thread(
                    eventually, lambda: version(service) == second, within=30, what="the newer file again"
                )
            finally:
                stop.set()
    scores = [each.astype(np.float64) @ query / np.linalg.norm(query) for each in files]
    scores = [
        each / np.linalg.norm(file.astype(np.float64), axis=1)
        for each, file in zip(scores, files, strict=True)
    ]
    expected = {
        name: (int(each.argmax()), each.max()) for name, each in zip((first, second), scores, strict=True)
    }
    answers = [answer for caller in callers for answer in caller.result()]
    assert {200} == {status for status, *_ in answers}
    assert {first, second} == {name for _, name, *_ in answers}
    for _, name, best, score in answers:
        assert expected[name][0] == best
        assert abs(expected[name][1] - score) < 1e-5
