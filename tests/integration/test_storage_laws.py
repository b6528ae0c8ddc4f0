"""Every storage obeys the same laws: a folder, S3 (moto, versitygw), GCS (an emulator, fake-gcs-server)."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Protocol

import pytest

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.body import read_chunks
from kosine.loading.storage.remote import Transfer
from kosine.loading.storage.stores import Stores
from kosine.settings import StoresSettings
from kosine.source_uri import COMMAND_LINE
from tests.kit.object_stores import ObjectServer
from tests.kit.writers import put_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kosine.loading.source import Fingerprint

CONTENT = random.Random(5).randbytes(400_009)
BLOCK = 32 * 2**10
"""So that the object takes more blocks than are in flight at a time."""


class Place(Protocol):
    """Where a publisher writes."""

    def uri(self, key: str) -> str: ...
    def put(self, key: str, content: bytes) -> None: ...
    def delete(self, key: str) -> None: ...


class Folder:
    """Implements `Place` as a folder that files are renamed into."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def uri(self, key: str) -> str:
        return str(self._path / key)

    def put(self, key: str, content: bytes) -> None:
        put_whole(self._path / key, content)

    def delete(self, key: str) -> None:
        (self._path / key).unlink()


REAL = [pytest.param(name, marks=pytest.mark.stores) for name in ("versitygw", "fake_gcs")]


@pytest.fixture(params=["local", "moto", "emulator", *REAL])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """One of the places, with nothing under the keys a test uses."""
    if request.param == "local":
        return Folder(tmp_path)
    found: Place = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A key of this test alone."""
    return f"{abs(hash(request.node.nodeid))}.npy"


@pytest.fixture
def stores(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stores]:
    """Small blocks, so that a small object takes many."""
    settings = StoresSettings()
    if isinstance(place, ObjectServer):
        settings = place.settings()
        for name, value in place.environment().items():
            monkeypatch.setenv(name, value)
    transfer = Transfer(draw=random.Random(1).random, block_bytes=BLOCK)
    with contextlib.closing(Stores(settings, policy=COMMAND_LINE, transfer=transfer)) as opened:
        yield opened


def read(stores: Stores, uri: str, fingerprint: Fingerprint, *, step: int = 50_000) -> bytes:
    """Read in order and verify, as a load does."""
    with stores.open(uri, fingerprint) as reader:
        buffer = memoryview(bytearray(reader.size))
        for start in range(0, reader.size, step):
            reader.read_into(start, buffer[start : start + step])
        reader.verify()
    return bytes(buffer)


def refusal(call: Callable[[], object]) -> tuple[LoadCode, Stage]:
    with pytest.raises(LoadError) as caught:
        call()
    return caught.value.code, caught.value.stage


def test_what_was_written_is_read(stores: Stores, place: Place, key: str) -> None:
    """Byte for byte, whatever the pieces; the fingerprint tells the size."""
    place.put(key, CONTENT)
    seen = stores.fingerprint(place.uri(key))
    assert len(CONTENT) == seen.size
    for step in (7_001, 65_536, len(CONTENT)):
        assert CONTENT == read(stores, place.uri(key), seen, step=step)


@pytest.mark.parametrize("size", [10_007, BLOCK, BLOCK + 1])
def test_the_chunks_of_a_load_are_what_was_written(stores: Stores, place: Place, key: str, size: int) -> None:
    """Byte for byte, lent or copied: of smaller chunks than a block, of blocks, and of larger ones."""
    place.put(key, CONTENT)
    sunk: list[bytes] = []
    with stores.open(place.uri(key), stores.fingerprint(place.uri(key))) as reader:
        chunks = read_chunks(
            reader,
            128,
            (min(size, len(CONTENT) - start) for start in range(128, len(CONTENT), size)),
            sink=lambda chunk: sunk.append(bytes(chunk)),
            cancelled=lambda: False,
            progress=lambda _: None,
        )
        assert CONTENT[128:] == b"".join(map(bytes, chunks))
    assert CONTENT == b"".join(sunk)


def test_reads_may_come_in_any_order(stores: Stores, place: Place, key: str) -> None:
    """A reader goes back, jumps and repeats, and always gives what is there."""
    place.put(key, CONTENT)
    rng = random.Random(2)
    with stores.open(place.uri(key), stores.fingerprint(place.uri(key))) as reader:
        for _ in range(12):
            start = rng.randrange(len(CONTENT))
            buffer = bytearray(min(rng.randrange(1, 100_000), len(CONTENT) - start))
            reader.read_into(start, memoryview(buffer))
            assert CONTENT[start : start + len(buffer)] == bytes(buffer)


def test_looking_twice_sees_the_same(stores: Stores, place: Place, key: str) -> None:
    """An object that nobody touches keeps its fingerprint."""
    place.put(key, CONTENT)
    assert stores.fingerprint(place.uri(key)) == stores.fingerprint(place.uri(key))


def test_when_it_was_written_is_told(stores: Stores, place: Place, key: str) -> None:
    """By the clock of the store, which may keep whole seconds."""
    began = int(time.time())
    place.put(key, CONTENT)
    written = stores.fingerprint(place.uri(key)).modified
    assert written is not None
    assert began <= written <= time.time()


def test_another_content_has_another_fingerprint(stores: Stores, place: Place, key: str) -> None:
    """N11: also one of the same length."""
    place.put(key, b"one")
    seen = stores.fingerprint(place.uri(key))
    place.put(key, b"two")
    assert seen.token != stores.fingerprint(place.uri(key)).token


def test_what_is_not_there_is_missing(stores: Stores, place: Place) -> None:
    """N13: before it is written, and after it was deleted; back again it is found."""
    uri = place.uri("came-and-went.npy")
    assert (LoadCode.SOURCE_MISSING, Stage.FINGERPRINT) == refusal(lambda: stores.fingerprint(uri))
    place.put("came-and-went.npy", b"one")
    assert 3 == stores.fingerprint(uri).size
    place.delete("came-and-went.npy")
    assert (LoadCode.SOURCE_MISSING, Stage.FINGERPRINT) == refusal(lambda: stores.fingerprint(uri))


def test_another_object_is_not_opened(stores: Stores, place: Place, key: str) -> None:
    """N11: replaced between the look and the open."""
    place.put(key, b"one")
    seen = stores.fingerprint(place.uri(key))
    place.put(key, b"two")
    assert (LoadCode.CHANGED_WHILE_READING, Stage.GATE) == refusal(lambda: read(stores, place.uri(key), seen))


@pytest.mark.parametrize(
    "other", [CONTENT[::-1], CONTENT[:-1], CONTENT + b"more"], ids=["same", "less", "more"]
)
def test_replaced_while_read_is_told(stores: Stores, place: Place, key: str, other: bytes) -> None:
    """N11, N14: either a read or `verify` says that it changed; nothing mixed passes for whole."""
    place.put(key, CONTENT)

    def torn() -> None:
        with stores.open(place.uri(key), stores.fingerprint(place.uri(key))) as reader:
            buffer = memoryview(bytearray(reader.size))
            reader.read_into(0, buffer[:100_000])
            place.put(key, other)
            reader.read_into(100_000, buffer[100_000:])
            reader.verify()

    assert (LoadCode.CHANGED_WHILE_READING, Stage.FETCH) == refusal(torn)


def test_removed_while_read_is_told(stores: Stores, place: Place, key: str) -> None:
    """N13: a load of what is gone does not end well, and the next look says that it is missing."""
    place.put(key, CONTENT)

    def torn() -> None:
        with stores.open(place.uri(key), stores.fingerprint(place.uri(key))) as reader:
            reader.read_into(0, memoryview(bytearray(1)))
            place.delete(key)
            reader.read_into(100_000, memoryview(bytearray(300_000)))
            reader.verify()

    assert (LoadCode.CHANGED_WHILE_READING, Stage.FETCH) == refusal(torn)
    assert (LoadCode.SOURCE_MISSING, Stage.FINGERPRINT) == refusal(lambda: stores.fingerprint(place.uri(key)))


def test_a_read_past_the_end_is_a_change(stores: Stores, place: Place, key: str) -> None:
    """The header was of another object."""
    place.put(key, b"0123456789")
    with stores.open(place.uri(key), stores.fingerprint(place.uri(key))) as reader:
        assert (LoadCode.CHANGED_WHILE_READING, Stage.FETCH) == refusal(
            lambda: reader.read_into(5, memoryview(bytearray(6)))
        )


def test_an_empty_object_is_empty(
    request: pytest.FixtureRequest, stores: Stores, place: Place, key: str
) -> None:
    """A truncated upload is told by its length, not by a failing read."""
    if request.node.callspec.params["place"] == "emulator":
        pytest.skip("the emulator closes the connection when an empty object is written")
    place.put(key, b"")
    assert b"" == read(stores, place.uri(key), stores.fingerprint(place.uri(key)))


def test_after_close_nothing_is_asked(stores: Stores, place: Place, key: str) -> None:
    """Closing twice does no harm; a look afterwards ends at once."""
    place.put(key, b"one")
    stores.fingerprint(place.uri(key))
    stores.close()
    stores.close()
    if isinstance(place, Folder):
        assert 3 == stores.fingerprint(place.uri(key)).size
    else:
        assert LoadCode.CANCELLED == refusal(lambda: stores.fingerprint(place.uri(key)))[0]


@pytest.mark.parametrize(("scheme", "module", "extra"), [("s3", "s3fs", "s3"), ("gs", "gcsfs", "gcs")])
def test_a_missing_extra_names_the_command(scheme: str, module: str, extra: str) -> None:
    """Whoever installed without it is told how to get it, not where a traceback ended."""
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from kosine.loading.storage.stores import Stores; from kosine.settings import StoresSettings\n"
        "from kosine.source_uri import COMMAND_LINE\n"
        f"Stores(StoresSettings(), policy=COMMAND_LINE).fingerprint('{scheme}://bucket/items.npy')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"pip install 'kosine[{extra}]'" in ended.stderr


def test_local_files_load_no_store(tmp_path: Path) -> None:
    """A service of local files pays for none of it: no import, no thread."""
    (tmp_path / "items.npy").write_bytes(b"one")
    code = (
        "import sys, threading\n"
        "from kosine.loading.storage.stores import Stores; from kosine.settings import StoresSettings\n"
        "from kosine.source_uri import COMMAND_LINE\n"
        "stores = Stores(StoresSettings(), policy=COMMAND_LINE); stores.fingerprint('items.npy')\n"
        "stores.close()\n"
        "print(*({'s3fs', 'gcsfs', 'fsspec', 'aiohttp'} & set(sys.modules)), threading.active_count())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "1" == ended.stdout.strip()
