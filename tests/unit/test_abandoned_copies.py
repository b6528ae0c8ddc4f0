"""Which folders of copies are removed: only what nobody uses, and nothing that is no copy."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import pytest

from kosine.loading.abandoned_copies import UNUSED_SECONDS, FoldersInUse, remove_unused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = ("current.json", f"{'0a' * 32}.npy", f"{'0b' * 32}.ids.npy", "vectors.partial")
NONE: frozenset[Path] = frozenset()


def folder(root: Path, name: str = "items", *, unused: float = 0.0, files: tuple[str, ...] = FILES) -> Path:
    """A copy that was last used `unused` seconds ago."""
    made = root / name
    made.mkdir()
    then = time.time() - unused
    for file in files:
        (made / file).write_bytes(b"content")
        os.utime(made / file, (then, then))
    os.utime(made, (then, then))
    return made


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """By another process: its locks are not ours."""
    others = FoldersInUse()
    others.hold(path)
    yield
    others.let_go()


def test_what_was_in_use_until_now_goes_at_once(tmp_path: Path) -> None:
    """The configuration without it is in force."""
    path, mine = folder(tmp_path), FoldersInUse()
    mine.hold(path)
    dropped = mine.let_go()
    assert {path} == dropped
    assert ["items"] == remove_unused(tmp_path, wanted=NONE, dropped=dropped)
    assert not path.exists()


def test_what_is_wanted_stays(tmp_path: Path) -> None:
    """However long nothing was written there."""
    path = folder(tmp_path, unused=UNUSED_SECONDS * 9)
    assert [] == remove_unused(tmp_path, wanted=frozenset({path}), dropped=NONE)
    assert path.exists()


@pytest.mark.parametrize("unused", [0.0, UNUSED_SECONDS * 9])
def test_what_another_process_holds_stays(tmp_path: Path, unused: float) -> None:
    """Even where this one has just dropped it; once the other lets go, it goes."""
    path = folder(tmp_path, unused=unused)
    with held(path), held(path):
        assert [] == remove_unused(tmp_path, wanted=NONE, dropped=frozenset({path}))
    assert len(FILES) == len(list(path.iterdir()))
    assert ["items"] == remove_unused(tmp_path, wanted=NONE, dropped=frozenset({path}))


@pytest.mark.parametrize(
    ("unused", "goes"), [(-3600, False), (UNUSED_SECONDS - 60, False), (UNUSED_SECONDS + 60, True)]
)
def test_what_nobody_held_goes_after_a_week(tmp_path: Path, unused: float, goes: bool) -> None:
    """Whoever uses it may not be running now."""
    path = folder(tmp_path, unused=unused)
    assert (["items"] if goes else []) == remove_unused(tmp_path, wanted=NONE, dropped=NONE)
    assert goes is not path.exists()


@pytest.mark.parametrize("file", ["notes.txt", "items.npy", ".lock", f"{'0A' * 32}.npy"])
def test_a_folder_with_something_else_in_it_stays_whole(tmp_path: Path, file: str) -> None:
    """Somebody has put it there."""
    path = folder(tmp_path, files=(*FILES, file))
    assert [] == remove_unused(tmp_path, wanted=NONE, dropped=frozenset({path}))
    assert {*FILES, file} == {one.name for one in path.iterdir()}


def test_what_is_no_folder_of_an_index_stays(tmp_path: Path) -> None:
    """Files, links, folders in it, and names that no index has."""
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "copies"
    root.mkdir()
    target = folder(outside, unused=UNUSED_SECONDS * 9)
    (root / "file").write_bytes(b"")
    (root / "link").symlink_to(target)
    folder(root, "Not-A-Name", unused=UNUSED_SECONDS * 9)
    (folder(root, "nested") / "folder").mkdir()
    everything = frozenset(root.iterdir())
    assert [] == remove_unused(root, wanted=NONE, dropped=everything)
    assert everything == frozenset(root.iterdir())
    assert len(FILES) == len(list(target.iterdir()))


def test_a_folder_that_went_meanwhile_is_not_held(tmp_path: Path) -> None:
    """There is nothing to hold, and nothing hangs."""
    mine = FoldersInUse()
    mine.hold(tmp_path / "items")
    assert NONE == mine.let_go()
