"""Going back where the source is in a store, moto behind the proxy of faults; golden queries from there."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from kosine.errors import ReloadFailed, VersionGone
from kosine.loading.copies import Copies
from kosine.loading.manifest import Manifest, Part, encode_manifest
from kosine.loading.storage.remote import Transfer
from kosine.loading.storage.stores import Stores
from kosine.retries import RetryPolicy
from kosine.settings import CanarySettings, S3Settings, StoresSettings
from kosine.source_uri import COMMAND_LINE
from tests.kit.fault_proxy import Fault, fault_proxy
from tests.kit.loads import index_settings, rig
from tests.kit.npy_files import npy_bytes, unit_rows
from tests.kit.object_stores import moto_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.kit.fault_proxy import FaultProxy
    from tests.kit.loads import Rig
    from tests.kit.object_stores import ObjectServer

pytestmark = pytest.mark.stores

ROWS, DIM = 500, 8
DOWN = Fault(status=503)


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """Events instead of lines."""
    with capture_logs() as events:
        yield events


@pytest.fixture(scope="module")
def moto() -> Iterator[ObjectServer]:
    with moto_server() as server:
        yield server


@pytest.fixture
def proxy(moto: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with fault_proxy(moto.endpoint) as standing:
        yield standing


def vectors(seed: int) -> NDArray[np.float32]:
    return unit_rows(ROWS, DIM, seed=seed).astype(np.float32)


@asynccontextmanager
async def service(
    proxy: FaultProxy, uri: str, *, copies: Path | None = None, **changes: Any
) -> AsyncIterator[Rig]:
    """The index `items` of an object."""
    transfer = Transfer(
        draw=random.Random(1).random, block_bytes=64 * 2**10, policy=RetryPolicy(attempts=2, first=0.01)
    )
    settings = StoresSettings(s3=S3Settings(endpoint_url=proxy.endpoint, region="us-east-1"))
    stores = Stores(settings, policy=COMMAND_LINE, transfer=transfer)
    kept = Copies(copies) if copies is not None else None
    try:
        async with rig(storage=stores, copies=kept) as running:
            await running.apply(items=index_settings(uri, interval=0.1, **changes))
            yield running
    finally:
        await asyncio.to_thread(stores.close)


async def published(running: Rig, count: int) -> None:
    await running.registry.until(lambda: len(running.registry.published) >= count)


async def named(moto: ObjectServer, seed: int) -> None:
    """Publish generation `seed` as a manifest of files of its own."""
    manifest = Manifest(vectors=Part(f"v{seed}.npy"), ids=Part(f"i{seed}.npy"), rows=ROWS, dim=DIM)
    ids = npy_bytes(np.arange(ROWS) + 1000 * seed)
    for key, content in (
        (f"v{seed}.npy", npy_bytes(vectors(seed))),
        (f"i{seed}.npy", ids),
        ("items.json", encode_manifest(manifest)),
    ):
        await asyncio.to_thread(moto.put, key, content)


async def two_manifests(running: Rig, moto: ObjectServer) -> None:
    """Generation 1 serves; then 2."""
    await published(running, 1)
    await named(moto, 2)
    await published(running, 2)


async def answer(running: Rig, seed: int) -> list[Any]:
    return (await running.ask("items", vectors(seed)[7])).ids


async def test_the_objects_that_the_manifest_named_then_are_read(
    proxy: FaultProxy, moto: ObjectServer
) -> None:
    """Without a copy: they are immutable, and named by what is remembered."""
    await named(moto, 1)
    async with service(proxy, "s3://vectors/items.json") as running:
        await two_manifests(running, moto)
        await running.catalog.order("items", "rollback")
        assert [1007] == await answer(running, 1)
        await running.registry.until(lambda: running.registry.load_status("items").waits)
        await running.catalog.order("items", "unpin")
        await published(running, 4)
        assert [2007] == await answer(running, 2)


async def test_objects_that_were_removed_are_gone(proxy: FaultProxy, moto: ObjectServer) -> None:
    """As `kosine publish --keep` does; the present version serves on."""
    await named(moto, 1)
    async with service(proxy, "s3://vectors/items.json") as running:
        await two_manifests(running, moto)
        await asyncio.to_thread(moto.delete, "v1.npy")
        with pytest.raises(VersionGone, match=r"v1\.npy is gone"):
            await running.catalog.order("items", "rollback")
        assert [2007] == await answer(running, 2)


async def test_a_store_that_is_down_is_not_taken_for_empty(proxy: FaultProxy, moto: ObjectServer) -> None:
    """The bytes may be there: another reason, and worth another try."""
    await named(moto, 1)
    async with service(proxy, "s3://vectors/items.json") as running:
        await two_manifests(running, moto)
        proxy.script = lambda _: DOWN
        with pytest.raises(ReloadFailed) as refused:
            await running.catalog.order("items", "rollback")
        assert "source_unreadable" == refused.value.facts["reason"]
        assert [2007] == await answer(running, 2)


async def test_an_object_that_was_overwritten_is_read_from_its_copy(
    proxy: FaultProxy, moto: ObjectServer, tmp_path: Path
) -> None:
    """Nothing of it is in the store any more; also with the store down, and after a restart."""
    await asyncio.to_thread(moto.put, "items.npy", npy_bytes(vectors(1)))
    uri = "s3://vectors/items.npy"
    async with service(proxy, uri, copies=tmp_path) as running:
        await published(running, 1)
        await asyncio.to_thread(moto.put, "items.npy", npy_bytes(vectors(2)))
        await published(running, 2)
        proxy.script = lambda _: DOWN
        first = (await running.catalog.order("items", "rollback")).version
        assert first == running.serves()
    async with service(proxy, uri, copies=tmp_path) as running:
        await published(running, 1)
        assert first == running.serves()
        proxy.script = lambda _: None
        await running.registry.until(lambda: running.registry.load_status("items").waits)
        assert 1 == len(running.registry.published)


async def test_golden_queries_are_read_from_the_store(proxy: FaultProxy, moto: ObjectServer) -> None:
    """Their file is looked at with each load: one that is put right lets the same object pass."""

    async def expect(row: int) -> None:
        golden = {"queries": [{"embedding": vectors(1)[7].tolist(), "k": 1, "expected": [row]}]}
        await asyncio.to_thread(moto.put, "golden.json", json.dumps(golden).encode())

    await asyncio.to_thread(moto.put, "items.npy", npy_bytes(vectors(1)))
    await expect(8)
    canary = CanarySettings(golden="s3://vectors/golden.json")
    async with service(proxy, "s3://vectors/items.npy", canary=canary) as running:
        await running.registry.until(lambda: running.error() == ("canary_failed", "canary"))
        assert running.serves() is None
        await expect(7)
        assert "published" == (await running.catalog.force("items")).outcome
        assert [7] == await answer(running, 1)
