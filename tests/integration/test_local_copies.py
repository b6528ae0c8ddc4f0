"""The local copy of what a store held last: N15 (disk full, damaged, killed on the way) and N21 (cold start).

S3 is moto's behind the proxy of faults, files are real, and a service is everything below HTTP and
TensorFlow. A restart is a second service on the same folder.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import random
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kosine.errors import IndexNotReady
from kosine.loading.copies import Copies
from kosine.loading.manifest import Manifest, Part, encode_manifest
from kosine.loading.storage.remote import Transfer
from kosine.loading.storage.stores import Stores
from kosine.retries import RetryPolicy
from kosine.settings import IndexSettings, S3Settings, StoresSettings
from kosine.source_uri import COMMAND_LINE
from tests.kit.fault_proxy import Fault, fault_proxy
from tests.kit.loads import index_settings, rig
from tests.kit.log_events import log_events
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

ROWS, DIM = 3_000, 16
DOWN = Fault(status=503)


@pytest.fixture(scope="module")
def moto() -> Iterator[ObjectServer]:
    with moto_server() as server:
        yield server


@pytest.fixture
def proxy(moto: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Before a store whose object is generation 0."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    moto.put("items.npy", content(0))
    with fault_proxy(moto.endpoint) as standing:
        yield standing


def rows(seed: int) -> NDArray[np.float32]:
    return unit_rows(ROWS, DIM, seed=seed).astype(np.float32)


def content(seed: int) -> bytes:
    return npy_bytes(rows(seed))


@asynccontextmanager
async def service(
    proxy: FaultProxy, folder: Path, uri: str = "s3://vectors/items.npy", **changes: Any
) -> AsyncIterator[Rig]:
    """A service of the index `items` that keeps copies in `folder`."""
    transfer = Transfer(
        draw=random.Random(1).random,
        block_bytes=64 * 2**10,
        policy=RetryPolicy(attempts=2, first=0.01),
    )
    settings = StoresSettings(s3=S3Settings(endpoint_url=proxy.endpoint, region="us-east-1"))
    stores = Stores(settings, policy=COMMAND_LINE, transfer=transfer)
    try:
        async with rig(storage=stores, copies=Copies(folder)) as running:
            await running.apply(items=index_settings(uri, interval=0.1, **changes))
            yield running
    finally:
        await asyncio.to_thread(stores.close)


async def answers_as(running: Rig, seed: int) -> bool:
    answer = await running.ask("items", rows(seed)[7])
    return answer.ids in ([7], [10_007]) and answer.scores[0] > 0.9999


async def published(running: Rig, count: int = 1) -> None:
    await running.registry.until(lambda: len(running.registry.published) >= count)


def stale(running: Rig) -> bool:
    return running.registry.load_status("items").stale


def kept(folder: Path) -> list[str]:
    items = folder / "items"
    return sorted(path.name for path in items.iterdir()) if items.is_dir() else []


async def recorded(folder: Path) -> None:
    """A copy is in place."""
    async with asyncio.timeout(20):
        while not (folder / "items" / "current.json").exists():
            await asyncio.sleep(0.01)


async def kept_from_store(proxy: FaultProxy, folder: Path) -> None:
    """A first life of the service, which leaves a copy of what the store holds."""
    async with service(proxy, folder) as running:
        await published(running)
        assert not stale(running)
        await recorded(folder)


async def test_n21_a_cold_start_without_a_store_serves_the_copy(proxy: FaultProxy, tmp_path: Path) -> None:
    """What served last answers, marked stale; back again, one look confirms it and nothing is read."""
    await kept_from_store(proxy, tmp_path)
    proxy.script = lambda _: DOWN
    async with service(proxy, tmp_path) as running:
        await running.registry.until(lambda: running.error() == ("source_unreadable", "fingerprint"))
        assert await answers_as(running, 0)
        assert stale(running)
        proxy.seen()
        proxy.script = lambda _: None
        await running.registry.until(lambda: not stale(running) and running.error() is None)
        assert {"HEAD"} == {request.method for request in proxy.seen()}
        assert 1 == len(running.registry.published)


async def test_n21_a_stale_copy_is_replaced_by_what_the_store_has(
    proxy: FaultProxy, moto: ObjectServer, tmp_path: Path
) -> None:
    """A newer object is loaded as ever, and is no longer stale."""
    await kept_from_store(proxy, tmp_path)
    await asyncio.to_thread(moto.put, "items.npy", content(1))
    proxy.script = lambda _: DOWN
    async with service(proxy, tmp_path) as running:
        await published(running)
        assert stale(running)
        proxy.script = lambda _: None
        await published(running, 2)
        assert not stale(running)
        assert await answers_as(running, 1)


async def test_n21_a_deleted_object_is_served_from_the_copy(
    proxy: FaultProxy, moto: ObjectServer, tmp_path: Path
) -> None:
    """N13: a source that is gone is served on, also by a replica that starts."""
    await kept_from_store(proxy, tmp_path)
    await asyncio.to_thread(moto.delete, "items.npy")
    async with service(proxy, tmp_path) as running:
        await running.registry.until(lambda: (running.error() or ("",))[0] == "source_missing")
        assert await answers_as(running, 0)
        assert stale(running)


async def test_a_restart_reads_the_copy_in_place_of_the_store(proxy: FaultProxy, tmp_path: Path) -> None:
    """The store says that it is the same object: no byte of it is fetched, and nothing is stale."""
    await kept_from_store(proxy, tmp_path)
    proxy.seen()
    async with service(proxy, tmp_path) as running:
        await published(running)
        assert {"HEAD"} == {request.method for request in proxy.seen()}
        assert not stale(running)
        assert await answers_as(running, 0)


async def test_without_a_copy_a_cold_start_is_unready(proxy: FaultProxy, tmp_path: Path) -> None:
    """N21: 503 for that index until the store answers."""
    proxy.script = lambda _: DOWN
    async with service(proxy, tmp_path) as running:
        await running.registry.until(lambda: running.error() is not None)
        with pytest.raises(IndexNotReady):
            await running.ask("items", rows(0)[7])


async def test_a_copy_of_another_source_is_not_served(proxy: FaultProxy, tmp_path: Path) -> None:
    """The index was pointed elsewhere while it was down."""
    await kept_from_store(proxy, tmp_path)
    proxy.script = lambda _: DOWN
    async with service(proxy, tmp_path, "s3://vectors/other.npy") as running:
        await running.registry.until(lambda: running.error() is not None)
        assert running.serves() is None


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def of_data(folder: Path) -> Path:
    return next((folder / "items").glob("*.npy"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip(of_data(folder)),
        lambda folder: of_data(folder).write_bytes(of_data(folder).read_bytes()[:-1]),
        lambda folder: of_data(folder).unlink(),
        lambda folder: (folder / "items" / "current.json").write_bytes(b'{"uri": '),
        lambda folder: (folder / "items" / "current.json").write_bytes(b"\xff\x00"),
        lambda folder: of_data(folder).write_bytes(b""),
    ],
    ids=["flipped bit", "truncated", "gone", "half a record", "no record", "empty"],
)
async def test_n15_a_damaged_copy_is_dropped_and_the_store_is_read(
    proxy: FaultProxy, tmp_path: Path, damage: Any
) -> None:
    """Never a version of it; it is removed, said once, and kept anew."""
    folder = tmp_path / "copies"
    await kept_from_store(proxy, folder)
    before = kept(folder)
    damage(folder)
    async with log_events() as log, service(proxy, folder) as running:
        await published(running)
        assert await answers_as(running, 0)
        assert "items" == (await log.wait("copy_unusable"))["index"]
        await recorded(folder)
    assert before == kept(folder)


@pytest.mark.parametrize("history", [0, 2])
async def test_copies_are_kept_of_what_is_remembered(
    proxy: FaultProxy, moto: ObjectServer, tmp_path: Path, history: int
) -> None:
    """After many versions the folder holds the last ones, the record and the history."""
    async with service(proxy, tmp_path, history=history) as running:
        for seed in range(4):
            await asyncio.to_thread(moto.put, "items.npy", content(seed))
            await published(running, seed + 1)
    assert history + 3 == len(kept(tmp_path))


async def test_a_bad_object_does_not_replace_the_copy(
    proxy: FaultProxy, moto: ObjectServer, tmp_path: Path
) -> None:
    """Read whole, found to hold NaN: what is kept is still the last good version."""
    await kept_from_store(proxy, tmp_path)
    before = kept(tmp_path)
    await asyncio.to_thread(moto.put, "items.npy", npy_bytes(np.full((ROWS, DIM), np.nan, np.float32)))
    async with service(proxy, tmp_path) as running:
        await running.registry.until(lambda: (running.error() or ("",))[0] == "not_finite")
    assert before == kept(tmp_path)


class _Full:
    """`os` on a disk without space, as far as one call goes."""

    def __init__(self, call: str) -> None:
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return self._refuse if name == self._call else getattr(os, name)

    def _refuse(self, *_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["open", "pwrite", "fsync", "mkdir"])
async def test_n15_a_full_disk_hurts_nobody(
    proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """ENOSPC at any step: the version serves, the log says why there is no copy, and nothing is left."""
    if call == "mkdir":
        (tmp_path / "items").write_bytes(b"in the way")
    else:
        monkeypatch.setattr("kosine.loading.copies.os", _Full(call))
    async with log_events() as log, service(proxy, tmp_path) as running:
        await published(running)
        assert await answers_as(running, 0)
        assert (await log.wait("copy_failed"))["reason"] in {"ENOSPC", "EEXIST", "ENOTDIR"}
    assert not any(name.endswith(".npy") for name in kept(tmp_path))


KILLED = r"""
import os, sys
from pathlib import Path
from datetime import UTC, datetime
from kosine.loading.copies import Copies
from kosine.loading.history import Served, serves
from kosine.loading.job import Sources
from kosine.loading.source import Fingerprint
from kosine.loading.version_files import files_of
from kosine.settings import IndexSettings
folder, step, text = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode()
import hashlib, kosine.loading.copies as copies, pathlib
steps = 0
def counted(call):
    def counting(*args, **more):
        global steps
        if steps == step: os._exit(9)
        steps += 1
        return call(*args, **more)
    return counting
sources = Sources(vectors=Fingerprint(token=text.decode(), size=len(text)))
class Source:
    size, buffer_bytes = len(text), 0
    def read_into(self, offset, buffer): buffer[:] = text[offset:offset + len(buffer)]
    def verify(self): pass
kept, settings = Copies(folder), IndexSettings(uri="s3://vectors/items.npy")
pending = kept.begin("items", settings, sources)
history, sha256 = kept.history("items"), hashlib.sha256(text).hexdigest()
for name in ("open", "pwrite", "fsync", "close"): setattr(copies.os, name, counted(getattr(os, name)))
for name in ("replace", "unlink"): setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))
buffer = memoryview(bytearray(len(text)))
pending.keeping(Source(), "vectors").read_into(0, buffer)
pending.found({"vectors": sha256})
pending.commit()
served = Served(
    version=sha256[:16], digest=sha256, fingerprint=text.decode(), rows=1, dim=1, layout="rows",
    metric="cosine", cause="source", published_at=datetime.now(UTC),
    files=files_of(settings, sources, {"vectors": sha256}),
)
kept.remember("items", serves(history, served, keep=1))
os._exit(0 if steps < step else 1)
"""


def killed_at(step: int, folder: Path, text: str) -> bool:
    """Write a copy in a process that is killed before its `step`-th call of the system."""
    command = [sys.executable, "-c", KILLED, str(folder), str(step), text]
    return subprocess.run(command, check=False).returncode == 9


def test_n15_a_kill_between_any_two_steps_leaves_whole_copies(tmp_path: Path) -> None:
    """What is found is the old copy or the new one, and all that is remembered; the next one cleans up."""
    settings = IndexSettings(uri="s3://vectors/items.npy")
    assert not killed_at(10_000, tmp_path, "0")
    step, found = 1, ["0"]
    while killed_at(step, tmp_path, f"{step}"):
        copies = Copies(tmp_path)
        sources = copies.recall("items", settings)
        assert sources is not None
        found.append(sources.vectors.token)
        remembered = copies.history("items").versions
        assert remembered
        assert all(copies.earlier("items", each.files) is not None for each in remembered)
        step += 1
    assert step > 12
    assert 1 < len(set(found)), "no kill came after the record"
    assert found == sorted(found, key=int)
    assert ["current.json", "history.json"] == [each for each in kept(tmp_path) if each.endswith(".json")]
    assert 4 == len(kept(tmp_path))


async def test_a_manifest_and_its_files_are_one_copy(
    proxy: FaultProxy, moto: ObjectServer, tmp_path: Path
) -> None:
    """Rows and ids that a manifest names come back together."""
    ids = npy_bytes(np.arange(10_000, 10_000 + ROWS))
    manifest = encode_manifest(Manifest(vectors=Part("v.npy"), ids=Part("i.npy"), rows=ROWS, dim=DIM))
    for key, data in (("v.npy", content(0)), ("i.npy", ids), ("items.json", manifest)):
        await asyncio.to_thread(moto.put, key, data)
    async with service(proxy, tmp_path, "s3://vectors/items.json") as running:
        await published(running)
        await recorded(tmp_path)
    assert json.loads((tmp_path / "items" / "current.json").read_bytes())["named"]["rows"] == ROWS
    proxy.script = lambda _: DOWN
    async with service(proxy, tmp_path, "s3://vectors/items.json") as running:
        await published(running)
        assert await answers_as(running, 0)
        assert stale(running)


def in_stock(seed: int) -> NDArray[np.bool_]:
    flags: NDArray[np.bool_] = np.random.default_rng(seed).random(ROWS) < 0.5
    return flags


def served_mask(running: Rig, name: str = "in_stock") -> list[bool]:
    version = running.registry.current("items")
    flags: list[bool] = [] if version is None else version.masks.find(name).flags.tolist()
    return flags


async def test_masks_of_a_store_are_followed_and_kept(
    proxy: FaultProxy, moto: ObjectServer, tmp_path: Path
) -> None:
    """A mask alone is fetched alone, and joins the copy: a cold start finds by the last one."""
    masks = {"in_stock": "s3://vectors/in_stock.npy", "new": "s3://vectors/new.npy"}
    for name in masks:
        await asyncio.to_thread(moto.put, f"{name}.npy", npy_bytes(in_stock(0)))
    async with service(proxy, tmp_path, masks=masks) as running:
        await published(running)
        await recorded(tmp_path)
        proxy.seen()
        await asyncio.to_thread(moto.put, "in_stock.npy", npy_bytes(in_stock(1)))
        await running.registry.until(lambda: served_mask(running) == in_stock(1).tolist())
        read = {request.target for request in proxy.seen() if request.method == "GET"}
        assert [True] == ["in_stock.npy" in target for target in read]
        assert 1 == len(running.registry.published)
        kept_now = hashlib.sha256(npy_bytes(in_stock(1))).hexdigest()
        async with asyncio.timeout(20):
            while kept_now not in (tmp_path / "items" / "current.json").read_text():
                await asyncio.sleep(0.01)
    proxy.script = lambda _: DOWN
    async with service(proxy, tmp_path, masks=masks) as running:
        await published(running)
        assert stale(running)
        assert await answers_as(running, 0)
        assert in_stock(1).tolist() == served_mask(running)
        assert in_stock(0).tolist() == served_mask(running, "new")
    async with service(proxy, tmp_path, masks={**masks, "more": "s3://vectors/more.npy"}) as running:
        await running.registry.until(lambda: running.error() is not None)
        assert running.serves() is None


async def test_the_copy_of_an_index_that_is_configured_no_more_goes(
    proxy: FaultProxy, tmp_path: Path
) -> None:
    """With the configuration that leaves it out, unless another process has it configured."""
    async with log_events() as log, service(proxy, tmp_path) as running:
        await published(running)
        await recorded(tmp_path)
        async with service(proxy, tmp_path) as replica:
            await published(replica)
            await running.apply()
            assert kept(tmp_path)
            await replica.apply()
            assert not kept(tmp_path)
            assert "items" == (await log.wait("copy_removed"))["index"]
        await running.apply(items=index_settings("s3://vectors/items.npy", interval=0.1))
        await recorded(tmp_path)
