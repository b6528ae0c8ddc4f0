"""An index in an object store, followed: everything below HTTP and TensorFlow is real, S3 is moto's.

Of the fault catalogue: N11, N13, N14, N16, N21, N24 as a caller of the index sees them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from kosine.errors import IndexNotReady, Stage
from tests.kit.fault_proxy import Fault, fault_proxy
from tests.kit.loads import index_settings, memory
from tests.kit.log_events import log_events
from tests.kit.npy_files import npy_bytes, unit_rows
from tests.kit.store_service import store_service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager

    from numpy.typing import NDArray

    from tests.kit.fault_proxy import FaultProxy, Request
    from tests.kit.loads import Rig
    from tests.kit.object_stores import ObjectServer

pytestmark = pytest.mark.stores

ROWS, DIM = 3_000, 16
SOON = 0.1


@pytest.fixture
def proxy(moto: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Before a store whose object is generation 0."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "first")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-first")
    moto.put("items.npy", content(0))
    with capture_logs(), fault_proxy(moto.endpoint) as standing:
        yield standing


def rows(seed: int) -> NDArray[np.float32]:
    return unit_rows(ROWS, DIM, seed=seed).astype(np.float32)


def content(seed: int) -> bytes:
    """The object of generation `seed`: 190 KB."""
    return npy_bytes(rows(seed))


def digest(data: bytes) -> str:
    """How a version of this object is called."""
    decoding = json.dumps(["rows", DIM, "cosine"]).encode()
    return hashlib.sha256(decoding + hashlib.sha256(data).digest()).hexdigest()


def looks(requests: list[Request]) -> list[Request]:
    return [request for request in requests if request.method == "HEAD"]


def service(proxy: FaultProxy, **changes: Any) -> AbstractAsyncContextManager[Rig]:
    """A service of the index `items`, polled ten times a second, that is soon out of patience."""
    impatient = {"interval": SOON, "idle_timeout": 0.3, "within": 2.0, "attempts": 2}
    return store_service(proxy.endpoint, **{"block_bytes": 32 * 2**10, **impatient, **changes})


async def put(moto: ObjectServer, seed: int) -> None:
    await asyncio.to_thread(moto.put, "items.npy", content(seed))


async def answers_as(running: Rig, seed: int) -> bool:
    answer = await running.ask("items", rows(seed)[7])
    return answer.ids == [7] and answer.scores[0] > 0.9999


async def published(running: Rig, count: int) -> None:
    await running.registry.until(lambda: len(running.registry.published) >= count)


async def failed_as(running: Rig, code: str) -> None:
    await running.registry.until(lambda: (running.error() or ("", ""))[0] == code)


async def test_an_object_is_served_and_followed(moto: ObjectServer, proxy: FaultProxy) -> None:
    """Each PUT of another content is found by the poll and served, whole."""
    async with service(proxy) as running:
        for seed in range(4):
            await put(moto, seed)
            await published(running, seed + 1)
            assert await answers_as(running, seed)
        assert 4 == len(set(running.registry.published))


async def test_an_unchanged_object_costs_one_head_a_poll(proxy: FaultProxy) -> None:
    """Equal fingerprint: one HEAD and nothing else, at most one per interval with its jitter."""
    async with service(proxy) as running:
        await published(running, 1)
        proxy.seen()
        began = time.monotonic()
        while len(proxy.requests) < 10:
            await asyncio.sleep(0.01)
        took = time.monotonic() - began
        seen = proxy.seen()
        assert {"HEAD"} == {request.method for request in seen}
        assert took > 9 * SOON * 0.9 - 0.05
        assert 1 == len(running.registry.published)


async def test_twenty_indexes_cost_twenty_heads_an_interval(moto: ObjectServer, proxy: FaultProxy) -> None:
    """Each index is asked about once an interval, by nothing else than HEAD, over shared connections."""
    names = [f"items-{number}" for number in range(20)]
    for name in names:
        await asyncio.to_thread(moto.put, f"{name}.npy", content(0))
    async with service(proxy, idle_timeout=5.0) as running:
        await published(running, 1)
        await running.apply(
            **{name: index_settings(f"s3://vectors/{name}.npy", interval=1.0) for name in names}
        )
        await running.registry.until(lambda: len(running.registry.published) == 21, within=60)
        proxy.seen()
        connections, began = proxy.connections, time.monotonic()
        while len(proxy.requests) < 100:
            await asyncio.sleep(0.05)
        seen, took = proxy.seen(), time.monotonic() - began
    assert {"HEAD"} == {request.method for request in seen}
    of_each = Counter(request.target for request in seen)
    assert 20 == len(of_each)
    assert max(of_each.values()) <= took / 0.9 + 1
    assert proxy.connections - connections <= 20


async def test_a_load_reads_every_byte_once(proxy: FaultProxy) -> None:
    """Two looks before it, one at its beginning, one at its end, and ranges that do not overlap.

    A request that is quiet for `idle_timeout` is sent again, so it is longer than any machine is slow.
    """
    async with service(proxy, idle_timeout=20.0, within=60.0) as running:
        await published(running, 1)
        seen = proxy.requests.copy()
    spans = sorted(
        tuple(map(int, request.headers["range"].removeprefix("bytes=").split("-")))
        for request in seen
        if "range" in request.headers
    )
    assert [0, *(stop + 1 for _, stop in spans[:-1])] == [start for start, _ in spans]
    assert len(content(0)) == spans[-1][1] + 1
    last_range = max(at for at, request in enumerate(seen) if request.method == "GET")
    assert 3 == len(looks(seen[:last_range]))


async def test_a_load_tells_how_far_it_is(proxy: FaultProxy) -> None:
    """Bytes read grow towards the size of the object while its ranges come in."""
    proxy.script = lambda request: Fault(delay=0.3) if "range" in request.headers else None
    size = len(content(0))
    async with service(proxy, idle_timeout=5.0) as running:
        await published(running, 1)
        fetched = [status for _, status in running.registry.notes if status.stage is Stage.FETCH]
    assert {size} == {status.bytes_total for status in fetched}
    read = [status.bytes_read for status in fetched]
    assert sorted(read) == read
    assert 0 == read[0]


async def test_a_missing_extra_is_told_once_and_shown(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status names the command; polls neither load anything nor repeat the warning."""
    monkeypatch.setitem(sys.modules, "s3fs", None)
    async with log_events() as log, service(proxy) as running:
        await running.registry.until(
            lambda: (
                (error := running.registry.load_status("items").last_error) is not None
                and error.consecutive > 3
            )
        )
        assert ("missing_extra", "fingerprint") == running.error()
        told = [event for event in log.named("reload_failed") if event["log_level"] == "warning"]
        assert 1 == len(told)
        assert "pip install 'kosine[s3]'" in told[0]["detail"]
    assert not proxy.requests


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(status=403), "source_forbidden"),
        (Fault(status=401), "source_forbidden"),
        (Fault(status=404), "source_missing"),
        (Fault(status=500), "source_unreadable"),
        (Fault(status=429, headers={"retry-after": "0"}), "source_unreadable"),
        (Fault(delay=3600), "source_unreadable"),
        (Fault(status=302, headers={"location": "http://127.0.0.1:9/secret"}), "source_unreadable"),
    ],
    ids=["403", "401", "404", "500", "429", "stall", "redirect"],
)
async def test_n13_n14_the_last_version_serves_on(
    moto: ObjectServer, proxy: FaultProxy, fault: Fault, code: str
) -> None:
    """Whatever the store says, or does not, the status tells it, callers do not notice, and it passes."""
    async with service(proxy) as running:
        await published(running, 1)
        proxy.script = lambda _: fault
        await failed_as(running, code)
        assert await answers_as(running, 0)
        proxy.script = lambda _: None
        await put(moto, 1)
        await published(running, 2)
        assert await answers_as(running, 1)


async def test_n13_a_deleted_object_serves_on_and_may_come_back(
    moto: ObjectServer, proxy: FaultProxy
) -> None:
    """`source_missing` is a status, not an answer; the same content again is not loaded again."""
    async with service(proxy) as running:
        await published(running, 1)
        await asyncio.to_thread(moto.delete, "items.npy")
        await failed_as(running, "source_missing")
        assert await answers_as(running, 0)
        await put(moto, 0)
        await running.registry.until(lambda: running.error() is None)
        assert 1 == len(running.registry.published)


async def test_n14_a_load_survives_cut_connections(moto: ObjectServer, proxy: FaultProxy) -> None:
    """Every second range is cut, reset or stalled; the version is whole."""
    faults = [Fault(cut_after=9_000), None, Fault(reset_after=100), None, Fault(stall_after=5_000), None]
    proxy.script = lambda request: faults[len(proxy.requests) % 6] if "range" in request.headers else None
    async with service(proxy) as running:
        await published(running, 1)
        assert await answers_as(running, 0)
        await put(moto, 1)
        await published(running, 2)
        assert await answers_as(running, 1)


async def test_n11_an_object_replaced_while_it_is_read_is_never_mixed(
    moto: ObjectServer, proxy: FaultProxy
) -> None:
    """Five PUTs, each in the middle of a load: the load is forgotten, and what was put is served, whole."""
    pending: list[int] = []

    def replace(request: Request) -> None:
        if "range" in request.headers and pending:
            moto.put("items.npy", content(pending.pop()))

    proxy.script = replace
    async with service(proxy) as running:
        await published(running, 1)
        for seed in range(1, 6):
            pending.append(10 * seed)
            await put(moto, seed)
            last = digest(content(10 * seed))
            await running.registry.until(lambda: running.registry.published[-1] == last)  # noqa: B023
            assert await answers_as(running, 10 * seed)
        assert 6 == len(running.registry.published)


async def test_n21_a_cold_start_without_a_store_is_unready_and_recovers(proxy: FaultProxy) -> None:
    """503 for that index, retries, and the first version once the store is there."""
    proxy.script = lambda _: Fault(status=503)
    async with service(proxy) as running:
        await failed_as(running, "source_unreadable")
        with pytest.raises(IndexNotReady):
            await running.ask("items", rows(0)[7])
        proxy.script = lambda _: None
        await published(running, 1)
        assert await answers_as(running, 0)


async def test_n24_rotated_credentials_are_used_by_the_next_poll(
    proxy: FaultProxy, moto: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Expired: the last version serves on. Rotated: followed again, without a restart."""
    async with service(proxy) as running:
        await published(running, 1)
        proxy.script = lambda request: (
            None if "Credential=second/" in request.headers["authorization"] else Fault(status=403)
        )
        await failed_as(running, "source_forbidden")
        await put(moto, 1)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "second")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-second")
        await published(running, 2)
        assert await answers_as(running, 1)


async def test_n16_the_window_of_a_remote_read_is_admitted(proxy: FaultProxy) -> None:
    """N16: memory for ranges in flight is booked with the matrix; what does not fit is not read."""
    need = ROWS * DIM * 4 + 6 * 8 * 2**20
    async with service(proxy, probe=memory(limit=need)) as running:
        await failed_as(running, "wont_fit")
        status = running.registry.load_status("items").last_error
        assert status is not None
        assert status.facts["buffer_bytes"] > 6 * 8 * 2**20
