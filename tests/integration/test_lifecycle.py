"""Start and stop of the process: what it refuses, what it promises, and in which order it leaves."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest

from tests.kit.process import eventually, kosine_serve

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.process import ServiceProcess

DIM = 8


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """A small index file."""
    path = tmp_path / "items.npy"
    np.save(path, np.random.default_rng(0).standard_normal((500, DIM), dtype=np.float32))
    return path


def query(service: ServiceProcess, client: httpx.Client | None = None) -> httpx.Response:
    """One good query."""
    post = httpx.post if client is None else client.post
    return post(f"{service.url}/indexes/items/cos", json={"embedding": [1.0] * DIM, "k": 3}, timeout=10)


def test_sigterm_is_unready_first_then_finishes_then_exits_0(items: Path) -> None:
    """H20: readiness flips at once, queries are still answered while it drains, keep-alive ends, exit 0."""
    with kosine_serve("--index", f"items={items}", "--set", "service.drain_delay=1s") as service:
        service.wait_ready()
        with httpx.Client() as client:
            assert query(service, client).status_code == 200
            service.process.send_signal(signal.SIGTERM)
            eventually(lambda: not service.ready(), within=1, what="unready")

            during = query(service, client)

        assert 200 == during.status_code
        assert "close" == during.headers["connection"]
        assert 0 == service.process.wait(timeout=20)
        events = [entry["event"] for entry in service.log]
        assert ["draining", "stopping", "stopped"] == [
            event for event in events if event in {"draining", "stopping", "stopped"}
        ]
        assert [] == service.raw


def test_a_second_sigterm_exits_at_once(items: Path) -> None:
    """H20: whoever sends it twice does not wait for the drain."""
    with kosine_serve("--index", f"items={items}", "--set", "service.drain_delay=1h") as service:
        service.process.send_signal(signal.SIGTERM)
        eventually(lambda: service.event("draining") is not None, within=5, what="draining")

        assert 128 + signal.SIGTERM == service.stop()


async def test_no_request_is_lost_behind_a_balancer_that_honours_readiness(items: Path) -> None:
    """H20, G11: callers who ask until their connection ends and then look elsewhere see only good answers."""
    with kosine_serve("--index", f"items={items}", "--set", "service.drain_delay=500ms") as service:
        await asyncio.to_thread(service.wait_ready)
        statuses: list[int] = []

        async def caller() -> None:
            async with httpx.AsyncClient(base_url=service.url) as client:
                while (await client.get("/readyz")).status_code == 200:
                    last = False
                    while not last:
                        response = await client.post(
                            "/indexes/items/cos", json={"embedding": [1.0] * DIM}, timeout=10
                        )
                        statuses.append(response.status_code)
                        last = response.headers.get("connection") == "close"

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(caller())
            while len(statuses) < 200:
                await asyncio.sleep(0.01)
            service.process.send_signal(signal.SIGTERM)

        assert 0 == await asyncio.to_thread(service.process.wait, 20)
    assert {200} == set(statuses)


def run_serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A `kosine serve` that is expected to end by itself."""
    command = [sys.executable, "-m", "kosine", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_taken_port_is_told_before_anything_is_loaded(items: Path) -> None:
    """Exit 2, one message that names the port and what to do, and no traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        ended = run_serve("--index", f"items={items}", "--port", str(port))

    assert 2 == ended.returncode
    assert str(port) in ended.stderr
    assert "--port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_gpu_without_one_refuses_to_start(items: Path) -> None:
    """Exit 2, saying what TensorFlow reported; nobody is served from a CPU by surprise."""
    ended = run_serve("--index", f"items={items}", "--port", "0", "--device", "gpu")

    assert 2 == ended.returncode
    assert "gpu" in ended.stderr.lower()
    assert "Traceback" not in ended.stderr


def test_an_index_whose_file_is_missing_keeps_the_others_serving(items: Path, tmp_path: Path) -> None:
    """N22: one bad index of two, tried: alive and ready; the good one answers, the bad one says why."""
    with kosine_serve("--index", f"items={items}", "--index", f"lost={tmp_path / 'lost.npy'}") as service:
        eventually(lambda: query(service).status_code == 200, within=30, what="the good index answers")
        eventually(
            lambda: httpx.get(f"{service.url}/indexes/lost").json()["state"] == "failed",
            within=10,
            what="the bad index failed",
        )
        lost = httpx.post(f"{service.url}/indexes/lost/cos", json={"embedding": [1.0]})

        assert (503, "index_not_ready", "source_missing") == (
            lost.status_code,
            lost.json()["code"],
            lost.json()["reason"],
        )
        assert "retry-after" in lost.headers
        assert httpx.get(f"{service.url}/livez").status_code == 200
        assert service.ready()

        np.save(tmp_path / "lost.npy", np.eye(4, dtype=np.float32))
        eventually(
            lambda: httpx.get(f"{service.url}/indexes/lost").json()["state"] == "available",
            within=10,
            what="the file that is there now is served",
        )
