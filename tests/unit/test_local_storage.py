"""Local files: what a fingerprint tells, what a reader refuses, and that a torn file never gets through.

Of the fault catalogue: N11 (rewritten, replaced, flipped, linked), N13 (missing, forbidden), N23 (clocks).
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading import local
from kosine.loading.local import LocalStorage
from kosine.loading.refresh_policy import MIN_SETTLE
from kosine.source_uri import COMMAND_LINE
from tests.kit.npy_files import npy_bytes
from tests.kit.writers import publish, rewrite_in_place, stamped

if TYPE_CHECKING:
    from collections.abc import Callable

    from kosine.loading.source import Fingerprint

STORAGE = LocalStorage(COMMAND_LINE)


def read(path: Path, fingerprint: Fingerprint | None = None) -> bytes:
    """Open, read all and verify, as a load does."""
    with STORAGE.open(str(path), fingerprint or STORAGE.fingerprint(str(path))) as reader:
        buffer = bytearray(reader.size)
        reader.read_into(0, memoryview(buffer))
        reader.verify()
    return bytes(buffer)


def refusal(call: Callable[[], object]) -> LoadError:
    """What a call is refused with."""
    with pytest.raises(LoadError) as caught:
        call()
    return caught.value


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    """Any range comes back byte for byte, from several threads at once too."""
    content = random.Random(1).randbytes(3_000_001)
    path = tmp_path / "items.npy"
    path.write_bytes(content)

    def piece(offset: int) -> bytes:
        buffer = bytearray(min(100_000, len(content) - offset))
        reader.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    with (
        STORAGE.open(str(path), STORAGE.fingerprint(str(path))) as reader,
        ThreadPoolExecutor(4) as threads,
    ):
        assert len(content) == reader.size
        assert content == b"".join(threads.map(piece, range(0, len(content), 100_000)))
        reader.verify()


def test_equal_fingerprints_mean_untouched(tmp_path: Path) -> None:
    """N11: every way to change a file, or to put another in its place, gives another fingerprint."""
    path = tmp_path / "items.npy"
    path.write_bytes(b"one")
    seen = [STORAGE.fingerprint(str(path)).token]

    def note() -> None:
        seen.append(STORAGE.fingerprint(str(path)).token)

    note()
    assert 1 == len(set(seen))

    path.write_bytes(b"two")
    note()
    publish(path, stamped(1, rows=2, dim=2))
    note()
    path.unlink()
    path.write_bytes(b"new")
    note()
    (tmp_path / "other.npy").write_bytes(b"oth")
    path.unlink()
    path.symlink_to("other.npy")
    note()
    (tmp_path / "third.npy").hardlink_to(tmp_path / "other.npy")
    note()

    assert 6 == len(set(seen))


def test_a_fingerprint_never_asks_which_is_newer(tmp_path: Path) -> None:
    """N23: a file from the past or the future, or with the same size and mtime, is another file."""
    path = tmp_path / "items.npy"
    tokens = set()
    for content, mtime in ((b"aa", 10**9), (b"bb", 10**9), (b"cc", 4 * 10**18), (b"dd", 0)):
        path.write_bytes(content)
        os.utime(path, ns=(mtime, mtime))
        tokens.add(STORAGE.fingerprint(str(path)).token)

    assert 4 == len(tokens)


@pytest.mark.parametrize(
    ("ctime", "expected"), [(1_700_000_000_000_000_000, 2.0), (1_700_000_000_000_000_001, 0.0)]
)
def test_a_store_of_whole_seconds_is_recognised(ctime: int, expected: float) -> None:
    """N23: where two writes of one second share their times, the fingerprint says how long to mistrust it."""
    facts = os.stat_result([0o100644, 1, 1, 1, 0, 0, 5, 0, 0, 0], {"st_mtime_ns": 5, "st_ctime_ns": ctime})

    assert expected == local._fingerprint(facts).resolution


FACTS = {"st_dev": 1, "st_ino": 2, "st_size": 3, "st_mtime_ns": 4, "st_ctime_ns": 5}


@pytest.mark.parametrize("changed", FACTS)
def test_any_fact_that_differs_is_another_fingerprint(changed: str) -> None:
    """N23: device, inode, size, mtime and ctime each count alone; clocks may stand still or jump."""

    def token(facts: dict[str, int]) -> str:
        head = [0o100644, facts["st_ino"], facts["st_dev"], 1, 0, 0, facts["st_size"], 0, 0, 0]
        return local._fingerprint(os.stat_result(head, facts)).token

    assert token(FACTS) == token(dict(FACTS))
    assert token(FACTS) != token(FACTS | {changed: 9})


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    """A folder, FIFO, socket or device is `not_a_file`, and a FIFO without a writer blocks nobody."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    try:
        for path in (tmp_path / "folder", tmp_path / "fifo", tmp_path / "socket", "/dev/zero"):
            assert LoadCode.NOT_A_FILE is refusal(lambda: STORAGE.fingerprint(str(path))).code  # noqa: B023
    finally:
        listener.close()


def test_a_fifo_put_in_the_files_place_does_not_hold_the_thread(tmp_path: Path) -> None:
    """Between the look and the open anything may happen; the open does not wait for a writer."""
    path = tmp_path / "items.npy"
    path.write_bytes(b"one")
    fingerprint = STORAGE.fingerprint(str(path))
    path.unlink()
    os.mkfifo(path)

    assert LoadCode.NOT_A_FILE is refusal(lambda: read(path, fingerprint)).code


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (lambda folder: folder / "items.npy", LoadCode.SOURCE_MISSING),
        (lambda folder: folder / "gone" / "items.npy", LoadCode.SOURCE_MISSING),
        (lambda folder: _file(folder / "file") / "items.npy", LoadCode.SOURCE_MISSING),
        (lambda folder: _link(folder / "loop", "loop"), LoadCode.SOURCE_UNREADABLE),
        (lambda folder: _link(folder / "dangling", "nowhere"), LoadCode.SOURCE_MISSING),
        (lambda folder: folder / ("x" * 300), LoadCode.SOURCE_UNREADABLE),
    ],
    ids=["missing", "no folder", "folder is a file", "link loop", "dangling link", "name too long"],
)
def test_what_the_system_says_becomes_a_code(
    prepare: Callable[[Path], Path], code: LoadCode, tmp_path: Path
) -> None:
    """N13: the code is stable, the stage says that nothing was opened."""
    error = refusal(lambda: STORAGE.fingerprint(str(prepare(tmp_path))))

    assert (code, Stage.FINGERPRINT) == (error.code, error.stage)


def _file(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def _link(path: Path, target: str) -> Path:
    path.symlink_to(target)
    return path


def test_only_the_configured_uri_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 11: where a relative path or a link leads on this machine is nobody's business."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.npy").symlink_to(tmp_path / "secret-folder" / "items.npy")

    detail = refusal(lambda: STORAGE.fingerprint("file:///nowhere/it is.npy")).detail
    assert "file:///nowhere/it is.npy does not exist; it is looked for again (ENOENT)" == detail
    assert str(tmp_path) not in refusal(lambda: STORAGE.fingerprint("items.npy")).detail


FORBIDDEN = """
import os, sys
from kosine.errors import LoadError
from kosine.loading.local import LocalStorage
os.setgroups([]); os.setegid(65534); os.seteuid(65534)
from kosine.source_uri import COMMAND_LINE
storage = LocalStorage(COMMAND_LINE)
for uri in sys.argv[1:]:
    try:
        with storage.open(uri, storage.fingerprint(uri)):
            print("open")
    except LoadError as error:
        print(error.code.value, error.stage.value)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_permission_that_was_lost_is_named() -> None:
    """N13: a file or folder closed to this process is `source_forbidden`; root would not notice."""
    with tempfile.TemporaryDirectory() as folder:  # tmp_path lies in folders that are closed to others
        shared = Path(folder)
        closed = shared / "closed"
        closed.mkdir(mode=0o700)
        shared.chmod(0o755)
        files = [shared / "open.npy", shared / "mine.npy", closed / "items.npy"]
        for path, mode in zip(files, (0o644, 0o600, 0o644), strict=True):
            path.write_bytes(b"one")
            path.chmod(mode)

        done = subprocess.run(
            [sys.executable, "-c", FORBIDDEN, *map(str, files)], capture_output=True, text=True, check=True
        )

    assert ["open", "source_forbidden gate", "source_forbidden fingerprint"] == done.stdout.splitlines()


def test_a_read_error_of_the_device_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dying disk or a stale NFS handle is `source_unreadable`, and may pass."""
    path = tmp_path / "items.npy"
    path.write_bytes(b"one")

    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    error = refusal(lambda: read(path))

    assert (LoadCode.SOURCE_UNREADABLE, Stage.FETCH, "EIO") == (
        error.code,
        error.stage,
        error.facts["errno"],
    )


def change_by_writing(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"!")


def change_by_truncating(path: Path) -> None:
    os.truncate(path, 1000)


def change_by_appending(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"!")


def change_by_replacing(path: Path) -> None:
    publish(path, stamped(2, rows=10, dim=10))


def change_by_removing(path: Path) -> None:
    path.unlink()


def change_by_copying_over(path: Path) -> None:
    shutil.copyfile(path, path.with_suffix(".copy"))
    shutil.copyfile(path.with_suffix(".copy"), path)


CHANGES = (
    change_by_writing,
    change_by_truncating,
    change_by_appending,
    change_by_replacing,
    change_by_removing,
    change_by_copying_over,
)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("when", ["before the open", "before the read", "after the read"])
def test_a_change_at_any_moment_is_noticed(change: Callable[[Path], None], when: str, tmp_path: Path) -> None:
    """N11: the fingerprint holds from before the first byte to after the last, for the file and its name."""
    path = tmp_path / "items.npy"
    publish(path, stamped(1, rows=1000, dim=10))
    uri = str(path)
    fingerprint = STORAGE.fingerprint(uri)

    def load() -> None:
        if when == "before the open":
            change(path)
        with STORAGE.open(uri, fingerprint) as reader:
            if when == "before the read":
                change(path)
            reader.read_into(0, memoryview(bytearray(reader.size)))
            if when == "after the read":
                change(path)
            reader.verify()

    error = refusal(load)
    if when == "before the open" and change is change_by_removing:
        assert LoadCode.SOURCE_MISSING is error.code
    else:
        assert LoadCode.CHANGED_WHILE_READING is error.code
    assert (Stage.GATE if when == "before the open" else Stage.FETCH) is error.stage


def test_a_name_that_leads_elsewhere_is_noticed(tmp_path: Path) -> None:
    """N11: a flipped link leaves the file that was opened untouched; its name is another's now."""
    for name in ("v1.npy", "v2.npy"):
        publish(tmp_path / name, stamped(1, rows=10, dim=10))
    path = tmp_path / "items.npy"
    path.symlink_to("v1.npy")
    with STORAGE.open(str(path), STORAGE.fingerprint(str(path))) as reader:
        reader.verify()
        path.unlink()
        path.symlink_to("v2.npy")

        assert LoadCode.CHANGED_WHILE_READING is refusal(reader.verify).code


def test_stale_attributes_of_the_name_do_not_hide_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N11: network file systems answer stat of a name from a cache; the open file is asked too."""
    path = tmp_path / "items.npy"
    publish(path, stamped(1, rows=10, dim=10))
    with STORAGE.open(str(path), STORAGE.fingerprint(str(path))) as reader:
        cached = path.stat()
        change_by_writing(path)
        monkeypatch.setattr(Path, "stat", lambda *_, **__: cached)

        assert LoadCode.CHANGED_WHILE_READING is refusal(reader.verify).code


def test_a_change_elsewhere_is_none_of_ours(tmp_path: Path) -> None:
    """A neighbour in the folder, and a reader of the file, change nothing."""
    path = tmp_path / "items.npy"
    publish(path, stamped(1, rows=10, dim=10))
    fingerprint = STORAGE.fingerprint(str(path))
    (tmp_path / "neighbour.npy").write_bytes(b"one")
    path.read_bytes()

    assert npy_bytes(stamped(1, rows=10, dim=10)) == read(path, fingerprint)


def test_a_refused_open_leaves_no_descriptor_behind(tmp_path: Path) -> None:
    """N17: a hundred failures of each kind, and as many open files as before."""
    path = tmp_path / "items.npy"
    path.write_bytes(b"one")
    stale = STORAGE.fingerprint(str(path))
    path.write_bytes(b"other")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(100):
        refusal(lambda: read(path, stale))

    assert before == len(list(Path("/proc/self/fd").iterdir()))


class InPlaceWriter(threading.Thread):
    """Rewrites one file in place every 10 ms on average, with rests in which a reader may begin."""

    def __init__(self, path: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._rng = random.Random(seed)
        self._done = threading.Event()
        self.generation = 0

    def run(self) -> None:
        while not self._done.is_set():
            for _ in range(self._rng.randint(1, 8)):
                self.generation += 1
                rewrite_in_place(self._path, stamped(self.generation, rows=4000, dim=8))
                self._done.wait(0.002)
            self._done.wait(self._rng.uniform(0.06, 0.12))

    def stop(self) -> None:
        self._done.set()
        self.join()


def attempt(path: Path) -> str:
    """One load as the policy allows it: two equal looks, then read in small pieces and verify."""
    uri = str(path)
    first = None
    while first is None or STORAGE.fingerprint(uri) != first:
        first = STORAGE.fingerprint(uri)
        time.sleep(MIN_SETTLE)
    content = bytearray(first.size)
    try:
        with STORAGE.open(uri, first) as reader:
            for offset in range(0, reader.size, 32 * 1024):
                reader.read_into(offset, memoryview(content)[offset : offset + 32 * 1024])
                time.sleep(0.001)
            reader.verify()
    except LoadError as error:
        return error.code.value
    rows = memoryview(content)[128:].cast("f").cast("B").cast("f", (4000, 8))
    angles = {(rows[row, 0], rows[row, 1]) for row in range(4000)}
    return "whole" if len(angles) == 1 else "torn"


def test_two_hundred_loads_of_a_file_rewritten_in_place_are_never_torn(tmp_path: Path) -> None:
    """N11, G3: against a writer that rewrites every 10 ms each load is whole or refused, never mixed."""
    paths = [tmp_path / f"items{number}.npy" for number in range(8)]
    for path in paths:
        publish(path, stamped(0, rows=4000, dim=8))
    writers = [InPlaceWriter(path, seed) for seed, path in enumerate(paths)]
    for writer in writers:
        writer.start()
    with ThreadPoolExecutor(len(paths)) as threads:
        outcomes = list(threads.map(attempt, paths * 25))
    for writer in writers:
        writer.stop()

    assert 200 == len(outcomes)
    assert 0 == outcomes.count("torn")
    assert outcomes.count("whole") > 0
    assert outcomes.count("changed_while_reading") > 0
