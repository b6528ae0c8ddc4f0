"""The files of a run."""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kosine.bench import files
from kosine.bench.files import alternating, make_file, make_queries, read_file
from kosine.errors import StartupError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_made_file_has_its_shape_and_is_the_same_for_the_same_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is plain .npy, also where it is written in several chunks."""
    monkeypatch.setattr(files, "_CHUNK_BYTES", 4 * 8 * 7)
    one, again, other = (tmp_path / f"{name}.npy" for name in "abc")
    for path, seed in ((one, 1), (again, 1), (other, 2)):
        make_file(path, rows=100, dim=8, seed=seed)
    array = np.load(one, allow_pickle=False)
    assert ((100, 8), np.float32) == (array.shape, array.dtype)
    assert 0.8 < array.std() < 1.2
    assert one.read_bytes() == again.read_bytes()
    assert one.read_bytes() != other.read_bytes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"<html>", "no .npy file"),
        (np.zeros(4, np.float32), "shape \\(N, d\\)"),
        (np.zeros((2, 2), np.int32), "rows of floats"),
        (np.zeros((0, 2), np.float32), "rows of floats"),
    ],
)
def test_a_file_that_is_no_rows_of_floats_is_refused(content: object, said: str, tmp_path: Path) -> None:
    """Before a service is started on it."""
    path = tmp_path / "items.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, np.ndarray):
        np.save(path, content)
    with pytest.raises(StartupError, match=said):
        read_file(path)


def test_queries_are_distinct_and_have_as_many_digits_as_are_sent() -> None:
    """The truth is computed of the very numbers in the body."""
    queries = make_queries(500, 16, seed=3)
    assert 500 == len(np.unique(queries, axis=0))
    assert (queries == queries.round(8)).all()


@pytest.mark.parametrize("rows", [2, 5, 100])
def test_replacing_is_a_rename_between_the_original_and_its_rows_rolled(rows: int, tmp_path: Path) -> None:
    """Another inode each time, so that the service sees a change; the same rows in another order."""
    served, folder = tmp_path / "items.npy", tmp_path / "aside"
    folder.mkdir()
    original = np.random.default_rng(0).standard_normal((rows, 4))
    np.save(served, original)
    first = served.stat().st_ino
    with alternating(served, folder) as content:
        for turn in range(1, 4):
            content.replace()
            assert (turn % 2 == 1) is (served.stat().st_ino != first)
            np.testing.assert_array_equal(np.roll(original, content.rolled, axis=0), np.load(served))
            assert [served.name] == [path.name for path in tmp_path.iterdir() if path.is_file()]
        assert 0 != content.rolled
    assert first == served.stat().st_ino
    np.testing.assert_array_equal(original, np.load(served))


def test_the_original_is_put_back_when_the_run_breaks(tmp_path: Path) -> None:
    """Ctrl-C included: it is the user's file."""
    served, folder = tmp_path / "items.npy", tmp_path / "aside"
    folder.mkdir()
    np.save(served, np.eye(3))
    inode, links = served.stat().st_ino, served.stat().st_nlink
    with suppress(KeyboardInterrupt), alternating(served, folder) as content:
        content.replace()
        raise KeyboardInterrupt
    (folder / "original.npy").unlink()
    assert (inode, links) == (served.stat().st_ino, served.stat().st_nlink)


def test_one_row_has_no_other_order(tmp_path: Path) -> None:
    """Its version would never change."""
    np.save(tmp_path / "items.npy", np.eye(1))
    with pytest.raises(StartupError, match="at least 2 rows"), alternating(tmp_path / "items.npy", tmp_path):
        pass


def test_a_full_disk_is_said_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the remedy."""
    full = SimpleNamespace(disk_usage=lambda _path: SimpleNamespace(free=10))
    monkeypatch.setattr(files, "shutil", full)
    with pytest.raises(StartupError, match=r"expected 128 bytes free .*TMPDIR"):
        make_file(tmp_path / "items.npy", rows=8, dim=4, seed=0)
