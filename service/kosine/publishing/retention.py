"""What old versions may go, and when.

Nothing that a manifest of the place names is removed, whoever wrote it. Nor is what is younger than the
manifest in force: whoever publishes reads the manifest, then writes objects, then replaces the manifest he
read, so what he is about to name is younger, or there already. For the latter a publisher looks, once his
manifest is in place, that all of it still is, and writes again what is not; and a removal that finds another
manifest ends. So a publisher that removes and one that goes back to an old version at that very moment do not
hurt each other.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kosine.publishing.target import Stored, Target

__all__ = ("prune", "stale")

_OBJECTS = (
    r"{}-[0-9a-f]{{32}}\.npy",
    r"{}-[0-9a-f]{{32}}\.ids\.npy",
    r"{}-[0-9a-f]{{32}}\.mask\.npy",
)


def stale(
    files: Sequence[Stored], *, name: str, keep: int, current: bytes, named: bytes, before: float
) -> list[Stored]:
    """Vectors, ids and masks of `name` beyond `keep` of each; of masks that many times those in force.

    Those that the `current` manifest names come first, then the newest. Whatever stands in `named` and what
    was not modified `before` stays.
    """
    gone: list[Stored] = []
    for pattern in _OBJECTS:
        ranked = sorted(
            (one for one in files if re.fullmatch(pattern.format(name), one.file)),
            key=lambda one: (one.file.encode() in current, one.modified),
            reverse=True,
        )
        in_force = sum(one.file.encode() in current for one in ranked)
        kept = keep * max(1, in_force)
        gone += [one for one in ranked[kept:] if one.file.encode() not in named and one.modified < before]
    return sorted(gone, key=lambda one: one.file)


def prune(target: Target, name: str, *, keep: int) -> Iterator[str]:
    """Remove what is stale, telling each file; call it within `exclusive`, with the manifest in place.

    Ends where another publisher replaces the manifest meanwhile: what may go is his decision then.
    """
    files = target.listing()
    manifests = {one.file: target.read(one) for one in files if one.file.endswith(".json")}
    own = next((one for one in files if one.file == f"{name}.json"), None)
    if own is None:
        return
    current = manifests[own.file]
    for one in stale(
        files,
        name=name,
        keep=keep,
        current=current,
        named=b"\n".join(manifests.values()),
        before=own.modified,
    ):
        if target.manifest(name) != current:
            return
        if target.remove(one):
            yield one.file
