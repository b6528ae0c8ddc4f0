"""The watcher on real folders: every way to change a file gives a hint, and nothing ends the watching."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs
from watchfiles import watch

from kosine.loading import watcher as watcher_module
from kosine.loading.watcher import Watcher
from tests.kit.npy_files import npy_bytes
from tests.kit.writers import ConfigMapFolder, publish, rewrite_in_place, stamped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from watchfiles.main import FileChange

RECHECK = 0.1


class Listener:
    """Counts hints, and waits for the next one."""

    def __init__(self) -> None:
        self.hints = 0
        self._hinted = asyncio.Event()

    def __call__(self) -> None:
        self.hints += 1
        self._hinted.set()

    async def hinted(self, within: float = 10.0) -> None:
        """Wait for a hint that was not waited for yet."""
        async with asyncio.timeout(within):
            await self._hinted.wait()
        self._hinted.clear()

    async def silent(self, seconds: float = 3 * RECHECK) -> None:
        """Hints of earlier events have all come: none for so long."""
        with contextlib.suppress(TimeoutError):
            while True:
                await self.hinted(within=seconds)


@pytest.fixture
async def watcher() -> AsyncIterator[Watcher]:
    watcher = Watcher(recheck=RECHECK)
    yield watcher
    await watcher.close()


async def armed(watcher: Watcher, path: Path) -> Listener:
    """A listener to `path` whose watch stands and is quiet."""
    listener = Listener()
    watcher.subscribe([str(path)], listener)
    await listener.hinted()
    await listener.silent()
    return listener


async def off_loop(call: Callable[[], object]) -> None:
    """File work of the test itself."""
    await asyncio.to_thread(call)


async def test_a_replaced_file_gives_a_hint_every_time(watcher: Watcher, tmp_path: Path) -> None:
    """N11: the watch is on the folder, so it survives that the file it was for is gone."""
    path = tmp_path / "items.npy"
    publish(path, stamped(0, rows=2, dim=2))
    listener = await armed(watcher, path)
    for generation in range(1, 6):
        await off_loop(lambda: publish(path, stamped(generation, rows=2, dim=2)))  # noqa: B023
        await listener.hinted()
        await listener.silent(0.15)


async def test_every_way_to_change_a_file_gives_a_hint(watcher: Watcher, tmp_path: Path) -> None:
    """N11: in place, truncated, deleted, created, linked, permissions."""
    path = tmp_path / "items.npy"
    publish(path, stamped(0, rows=2, dim=2))
    listener = await armed(watcher, path)
    content = npy_bytes(stamped(1, rows=2, dim=2))
    for change in (
        lambda: rewrite_in_place(path, stamped(1, rows=2, dim=2)),
        lambda: path.write_bytes(b""),
        path.unlink,
        lambda: path.write_bytes(content),
        lambda: (tmp_path / "link.npy").hardlink_to(path),
        lambda: path.chmod(0o600),
    ):
        await off_loop(change)
        await listener.hinted()
        await listener.silent(0.15)


async def test_a_flipped_configmap_gives_a_hint(watcher: Watcher, tmp_path: Path) -> None:
    """N11: the key never changes itself; `..data` beside it does."""
    mounted = ConfigMapFolder(tmp_path)
    mounted.write({"items.npy": b"one"})
    listener = await armed(watcher, tmp_path / "items.npy")
    for content in (b"two", b"three"):
        await off_loop(lambda: mounted.write({"items.npy": content}))  # noqa: B023
        await listener.hinted()
        await listener.silent()


async def test_a_link_in_a_quiet_folder_leads_to_a_busy_one(watcher: Watcher, tmp_path: Path) -> None:
    """N11: both the folder a path is written in and the one it resolves to are watched."""
    (tmp_path / "config").mkdir()
    (tmp_path / "data").mkdir()
    target = tmp_path / "data" / "items.npy"
    publish(target, stamped(0, rows=2, dim=2))
    link = tmp_path / "config" / "items.npy"
    link.symlink_to(target)
    listener = await armed(watcher, link)

    await off_loop(lambda: publish(target, stamped(1, rows=2, dim=2)))
    await listener.hinted()


async def test_a_folder_on_the_way_that_is_a_flipped_link_is_noticed(
    watcher: Watcher, tmp_path: Path
) -> None:
    """N11: `current -> v1` turned to `v2`: seen at the next recheck, and followed into the new folder."""
    for name in ("v1", "v2"):
        (tmp_path / name).mkdir()
        publish(tmp_path / name / "items.npy", stamped(0, rows=2, dim=2))
    current = tmp_path / "current"
    current.symlink_to("v1")
    listener = await armed(watcher, current / "items.npy")

    def flip() -> None:
        (tmp_path / "next").symlink_to("v2")
        (tmp_path / "next").replace(current)

    await off_loop(flip)
    await listener.hinted()
    await listener.silent()
    await off_loop(lambda: publish(tmp_path / "v2" / "items.npy", stamped(1, rows=2, dim=2)))
    await listener.hinted()


async def test_events_are_not_left_to_the_recheck(tmp_path: Path) -> None:
    """A new path is hinted at once, and a link flipped to a file of another folder by its own event."""
    watcher = Watcher(recheck=3600)
    (tmp_path / "store").mkdir()
    for name in ("v1.npy", "v2.npy"):
        publish(tmp_path / "store" / name, stamped(0, rows=2, dim=2))
    link = tmp_path / "items.npy"
    link.symlink_to("store/v1.npy")
    try:
        listener = await armed(watcher, link)

        def flip() -> None:
            (tmp_path / "next").symlink_to("store/v2.npy")
            (tmp_path / "next").replace(link)

        await off_loop(flip)
        await listener.hinted()
    finally:
        await watcher.close()


async def test_a_change_before_the_watch_stands_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the survey of the folders and the arming of the watch nobody hears: it is hinted after."""
    listener = Listener()

    def slow_to_arm(*paths: str, **options: Any) -> Iterator[set[FileChange]]:
        (tmp_path / "items.npy").touch()
        return watch(*paths, **options)

    monkeypatch.setattr(watcher_module, "watch", slow_to_arm)
    watcher = Watcher(recheck=RECHECK)
    try:
        watcher.subscribe([str(tmp_path / "items.npy")], listener)
        while listener.hints < 2:
            await listener.hinted()
    finally:
        await watcher.close()


async def test_a_folder_swapped_for_another_is_watched_again(watcher: Watcher, tmp_path: Path) -> None:
    """N13: a folder renamed away, or mounted over, takes its watch along; the new one is armed."""
    folder = tmp_path / "data"
    folder.mkdir()
    listener = await armed(watcher, folder / "items.npy")

    def swap() -> None:
        (tmp_path / "next").mkdir()
        folder.rename(tmp_path / "previous")
        (tmp_path / "next").rename(folder)

    await off_loop(swap)
    await listener.hinted()
    await listener.silent()
    await off_loop(lambda: publish(folder / "items.npy", stamped(1, rows=2, dim=2)))
    await listener.hinted()


async def test_a_folder_that_goes_and_comes_back_is_watched_again(watcher: Watcher, tmp_path: Path) -> None:
    """N13: removed, recreated, and a file in it changed: each gives a hint."""
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "items.npy"
    publish(path, stamped(0, rows=2, dim=2))
    listener = await armed(watcher, path)

    await off_loop(lambda: shutil.rmtree(folder))
    await listener.hinted()
    await listener.silent()
    await off_loop(folder.mkdir)
    await listener.hinted()
    await listener.silent()
    await off_loop(lambda: publish(path, stamped(1, rows=2, dim=2)))
    await listener.hinted()


async def test_a_folder_that_is_not_there_yet_is_waited_for(watcher: Watcher, tmp_path: Path) -> None:
    """A missing folder keeps neither the others from being watched nor itself from appearing."""
    there, later = await armed(watcher, tmp_path / "items.npy"), Listener()
    watcher.subscribe([str(tmp_path / "later" / "items.npy")], later)
    await later.silent()

    await off_loop((tmp_path / "other.npy").touch)
    await there.hinted()
    await off_loop((tmp_path / "later").mkdir)
    await later.hinted()


async def test_paths_come_and_go_while_watching(watcher: Watcher, tmp_path: Path) -> None:
    """A new path is watched at once; one that was given up gives no more hints, and ends nothing else."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, second = Listener(), Listener()
    end_first = watcher.subscribe([str(tmp_path / "a" / "items.npy")], first)
    await first.hinted()
    watcher.subscribe([str(tmp_path / "b" / "items.npy")], second)
    await second.hinted()
    end_first()
    await first.silent()
    await second.silent()
    before = first.hints

    await off_loop((tmp_path / "a" / "items.npy").touch)
    await off_loop((tmp_path / "b" / "items.npy").touch)
    await second.hinted()

    assert before == first.hints


async def test_a_relative_path_is_watched_where_the_process_stands(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kosine serve --index items=items.npy` watches too."""
    monkeypatch.chdir(tmp_path)
    listener = Listener()
    watcher.subscribe(["items.npy"], listener)
    await listener.hinted()
    await listener.silent()

    await off_loop((tmp_path / "items.npy").touch)
    await listener.hinted()


async def test_hints_of_a_busy_folder_are_bundled(watcher: Watcher, tmp_path: Path) -> None:
    """A thousand files written beside ours cost a handful of looks."""
    listener = await armed(watcher, tmp_path / "items.npy")
    before = listener.hints

    def chatter() -> None:
        for number in range(1000):
            (tmp_path / f"{number}.tmp").touch()

    await off_loop(chatter)
    await listener.hinted()
    await listener.silent()

    assert listener.hints - before <= 12


OUT_OF_WATCHES = """
import asyncio, pathlib, resource, sys
from structlog.testing import capture_logs
from kosine.loading.watcher import Watcher

async def main():
    folder = pathlib.Path(sys.argv[1])
    hinted = asyncio.Event()
    watcher = Watcher(recheck=0.1)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with capture_logs() as events:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        watcher.subscribe([str(folder / "items.npy")], hinted.set)
        while not events:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        print([event["event"] for event in events])
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        await asyncio.sleep(0.5)
        hinted.clear()
        (folder / "items.npy").touch()
        await asyncio.wait_for(hinted.wait(), 10)
        print("hinted")
    await watcher.close()

asyncio.run(main())
"""


async def test_without_watches_left_it_says_so_once_and_tries_again(tmp_path: Path) -> None:
    """EMFILE (and ENOSPC alike): one log line, polling goes on elsewhere, and watching begins when it can."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", OUT_OF_WATCHES, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert ("['watch_unavailable']\nhinted\n", "") == (done.stdout, done.stderr)


async def test_closing_ends_the_thread(tmp_path: Path) -> None:
    """Nothing of it is left, with folders armed or without."""
    import threading

    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "kosine-watcher"]

    with capture_logs() as events:
        for path in (tmp_path / "items.npy", tmp_path / "gone" / "items.npy"):
            watcher = Watcher(recheck=5.0)
            watcher.subscribe([str(path)], lambda: None)
            await watcher.close()

    for thread in threads():
        await asyncio.to_thread(thread.join, 5)
    assert [] == threads()
    assert [] == events
