"""Buckets that keep versions: a read is pinned to one, and its id is what identifies the bytes."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kosine.errors import LoadCode, LoadError
from kosine.loading.storage.remote import Transfer
from kosine.loading.storage.stores import Stores
from kosine.source_uri import COMMAND_LINE
from tests.kit.fault_proxy import fault_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kit.fault_proxy import FaultProxy
    from tests.kit.object_stores import ObjectServer

CONTENT = random.Random(5).randbytes(400_009)


@pytest.fixture(scope="module", params=["moto", pytest.param("versitygw", marks=pytest.mark.stores)])
def server(request: pytest.FixtureRequest) -> ObjectServer:
    """A bucket that keeps versions."""
    found: ObjectServer = request.getfixturevalue(request.param)
    keeping = replace(found, bucket="versions")
    keeping.make_bucket(versioned=True)
    return keeping


@pytest.fixture
def proxy(server: ObjectServer) -> Iterator[FaultProxy]:
    with fault_proxy(server.endpoint) as standing:
        yield standing


@pytest.fixture
def stores(server: ObjectServer, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    transfer = Transfer(draw=random.Random(1).random, parallel=2, block_bytes=32 * 2**10)
    settings = server.settings(endpoint=proxy.endpoint)
    with contextlib.closing(Stores(settings, policy=COMMAND_LINE, transfer=transfer)) as opened:
        yield opened


def test_the_same_bytes_again_are_another_version(server: ObjectServer, stores: Stores) -> None:
    """N11: the ETag of equal bytes is equal; the version is not, so nothing is taken for what was read."""
    server.put("items.npy", b"one")
    first = stores.fingerprint(server.uri("items.npy"))
    server.put("items.npy", b"one")
    assert first.token != stores.fingerprint(server.uri("items.npy")).token


def test_every_range_names_the_version(server: ObjectServer, stores: Stores, proxy: FaultProxy) -> None:
    """N14: replaced in the middle of a read, what comes is the version that was opened, to its last byte.

    `verify` says that it is not the newest any more.
    """
    server.put("items.npy", CONTENT)
    uri = server.uri("items.npy")
    buffer = memoryview(bytearray(len(CONTENT)))
    with stores.open(uri, stores.fingerprint(uri)) as reader:
        reader.read_into(0, buffer[:70_000])
        server.put("items.npy", CONTENT[::-1])
        reader.read_into(70_000, buffer[70_000:])
        assert CONTENT == bytes(buffer)
        with pytest.raises(LoadError) as changed:
            reader.verify()
    assert LoadCode.CHANGED_WHILE_READING is changed.value.code
    ranges = [request for request in proxy.seen() if "range" in request.headers]
    assert len(ranges) > 10
    assert all("versionId=" in request.target and "if-match" in request.headers for request in ranges)


def test_a_delete_marker_is_missing(server: ObjectServer, stores: Stores) -> None:
    """N13: what is deleted is kept as a version, and is not there."""
    server.put("items.npy", b"one")
    server.delete("items.npy")
    with pytest.raises(LoadError) as missing:
        stores.fingerprint(server.uri("items.npy"))
    assert LoadCode.SOURCE_MISSING is missing.value.code
