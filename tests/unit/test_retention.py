"""What old versions may go: pure, as a table."""

from __future__ import annotations

import pytest

from kosine.publishing.retention import stale
from kosine.publishing.target import Stored


def vectors(number: int, name: str = "items") -> str:
    return f"{name}-{number:032x}.npy"


def ids(number: int) -> str:
    return f"items-{number:032x}.ids.npy"


def written(*files: str) -> list[Stored]:
    """One second after the other."""
    return [Stored(file=file, modified=float(at), token=str(at)) for at, file in enumerate(files)]


def test_masks_are_kept_for_as_many_versions_as_vectors() -> None:
    """A version has several: of as many as are in force each, the newest."""
    masks = [f"items-{number:032x}.mask.npy" for number in range(8)]
    in_force = " ".join(masks[6:]).encode()

    def left(keep: int, named: bytes = in_force) -> list[str]:
        gone = stale(written(*masks), name="items", keep=keep, current=in_force, named=named, before=99)
        return [each for each in masks if each not in {one.file for one in gone}]

    assert (masks[6:], masks[4:], masks[2:]) == (left(1), left(2), left(3))
    assert [masks[0], *masks[6:]] == left(1, in_force + masks[0].encode())


@pytest.mark.parametrize(
    ("files", "current", "named", "keep", "before", "gone"),
    [
        ([vectors(1), vectors(2), vectors(3)], [3], [3], 1, 9, [vectors(1), vectors(2)]),
        ([vectors(1), vectors(2), vectors(3)], [3], [3], 2, 9, [vectors(1)]),
        ([vectors(1), vectors(2), vectors(3)], [3], [3], 3, 9, []),
        # Gone back: what is served counts first, then the newest.
        ([vectors(1), vectors(2), vectors(3)], [1], [1], 2, 9, [vectors(2)]),
        ([vectors(1), vectors(2), vectors(3)], [1], [1], 1, 9, [vectors(2), vectors(3)]),
        # Another manifest names it.
        ([vectors(1), vectors(2), vectors(3)], [3], [1, 3], 1, 9, [vectors(2)]),
        # As young as the manifest, or younger: somebody may be about to name it.
        ([vectors(1), vectors(2), vectors(3)], [1], [1], 1, 2, [vectors(2)]),
        ([vectors(1), vectors(2), vectors(3)], [1], [1], 1, 1, []),
        # Vectors and ids are counted apart.
        ([ids(1), vectors(2), vectors(3)], [3], [3], 1, 9, [vectors(2)]),
        ([ids(1), ids(2), vectors(3)], [3], [3], 1, 9, [ids(1)]),
        # What is not of this publication.
        ([vectors(1, "other"), "items-notes.npy", "items-2.npy", vectors(1) + ".old"], [], [], 1, 9, []),
        ([vectors(1, "items-more"), vectors(2)], [2], [2], 1, 9, []),
    ],
)
def test_what_may_go(
    files: list[str], current: list[int], named: list[int], keep: int, before: float, gone: list[str]
) -> None:
    """Beyond N of each kind, named by nobody, and older than the manifest in force."""

    def content(numbers: list[int]) -> bytes:
        return "\n".join(f"{vectors(number)} {ids(number)}" for number in numbers).encode()

    found = stale(
        written(*files),
        name="items",
        keep=keep,
        current=content(current),
        named=content(named),
        before=before,
    )
    assert sorted(gone) == [one.file for one in found]
