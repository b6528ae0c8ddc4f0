"""Stores that are closed leave nothing behind: no connection and no thread, whatever was under way."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import time
import warnings
from typing import TYPE_CHECKING

import psutil
import pytest

from kosine.errors import LoadCode, LoadError
from kosine.loading.storage.stores import Stores
from kosine.settings import GcsSettings, S3Settings, StoresSettings
from kosine.source_uri import COMMAND_LINE
from tests.kit.fault_proxy import Fault, fault_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kit.object_stores import ObjectServer

pytestmark = pytest.mark.stores

CONTENT = bytes(300_000)
KINDS = ("s3", "gs")


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of anybody."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@contextlib.contextmanager
def nothing_left(port: Callable[[], int]) -> Iterator[None]:
    """No connection of this process to `port`, no thread of a store, and no socket for the collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        yield
        gc.collect()
    connections = psutil.Process().net_connections("tcp")
    assert [] == [one for one in connections if one.raddr[1:] == (port(),)]
    kept = ("kosine-transfer", "kosine-storage")
    assert [] == [thread.name for thread in threading.enumerate() if thread.name.startswith(kept)]


def stores_at(endpoint: str) -> Stores:
    settings = StoresSettings(
        s3=S3Settings(endpoint_url=endpoint, region="us-east-1"),
        gcs=GcsSettings(endpoint_url=endpoint, anon=True),
    )
    return Stores(settings, policy=COMMAND_LINE)


def cancelled(stores: Stores, call: Callable[[], object], *, once: Callable[[], bool]) -> None:
    """`call` is under way once `once()` is true; then the stores are closed, and it says so."""
    codes: list[LoadCode] = []

    def run() -> None:
        with pytest.raises(LoadError) as error:
            call()
        codes.append(error.value.code)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 30
    while not once():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stores.close()
    thread.join(10)
    assert [LoadCode.CANCELLED] == codes


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_does_not_answer_is_left_at_once(kind: str) -> None:
    """A look in flight: the request was sent, no answer comes."""
    with contextlib.ExitStack() as held, socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        port: int = silent.getsockname()[1]
        with nothing_left(lambda: port):
            stores = stores_at(f"http://127.0.0.1:{port}")

            def asked() -> bool:
                held.enter_context(silent.accept()[0])
                return True

            cancelled(stores, lambda: stores.fingerprint(f"{kind}://vectors/a.npy"), once=asked)


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_stalls_in_a_body_is_left_at_once(
    kind: str, moto: ObjectServer, emulator: ObjectServer
) -> None:
    """Ranges in flight, each with a part of its bytes."""
    server = moto if kind == "s3" else emulator
    server.put("close.npy", CONTENT)
    uri = server.uri("close.npy")
    with fault_proxy(server.endpoint) as proxy:
        proxy.script = lambda request: Fault(stall_after=1000) if "range" in request.headers else None
        with nothing_left(lambda: int(proxy.endpoint.rpartition(":")[2])):
            stores = stores_at(proxy.endpoint)

            def read() -> None:
                with stores.open(uri, stores.fingerprint(uri)) as reader:
                    reader.read_into(0, memoryview(bytearray(len(CONTENT))))

            cancelled(stores, read, once=lambda: any("range" in one.headers for one in proxy.requests))


@pytest.mark.parametrize("kind", KINDS)
def test_connections_that_rest_are_closed(kind: str, moto: ObjectServer, emulator: ObjectServer) -> None:
    """After a load that went well, and after one that was broken off."""
    server = moto if kind == "s3" else emulator
    server.put("close.npy", CONTENT)
    uri = server.uri("close.npy")
    with nothing_left(lambda: server.port):
        stores = stores_at(server.endpoint)
        for size in (len(CONTENT), 1):
            with stores.open(uri, stores.fingerprint(uri)) as reader:
                reader.read_into(0, memoryview(bytearray(size)))
        stores.close()
