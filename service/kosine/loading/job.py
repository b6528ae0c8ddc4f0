"""What a load is asked for: which files, as they were when they were looked at, for whom, beside what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kosine.loading.source import Fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kosine.errors import Stage
    from kosine.loading.canary.live import LiveVersion
    from kosine.loading.history import Served
    from kosine.loading.manifest import Manifest
    from kosine.loading.pace import Pace
    from kosine.serving.masks import Masks
    from kosine.serving.status import CanaryReport, VersionInfo
    from kosine.settings import IndexSettings

__all__ = ("Held", "LoadJob", "Sources", "Unchanged")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Fingerprints of the files of one index, which are one unit."""

    vectors: Fingerprint
    """Of the manifest itself where that cannot be read, so that it settles and fails like any bad file."""
    ids: Fingerprint | None = None
    masks: Mapping[str, Fingerprint] = field(default_factory=dict)
    manifest: Fingerprint | None = None
    named: Manifest | None = None
    """What the manifest said when it was looked at."""

    @property
    def combined(self) -> Fingerprint:
        """As if they were one file: it changes when any does."""
        items = [self.vectors, *([self.ids] if self.ids is not None else [])]
        items = [*([self.manifest] if self.manifest is not None else []), *items]
        masks = sorted(self.masks.items())
        all_of_it = [*items, *(mask for _, mask in masks)]
        return Fingerprint(
            token="+".join([one.token for one in items] + [f"{name}={one.token}" for name, one in masks]),
            size=sum(one.size for one in all_of_it if one is not self.manifest),
            resolution=max(one.resolution for one in all_of_it),
            modified=max((one.modified for one in items if one.modified is not None), default=None),
        )

    def differs_in_masks_only(self, other: Sources) -> bool:
        """Whether vectors and ids are those of `other`, and what a manifest says of them, too."""
        return self._items == other._items

    @property
    def _items(self) -> tuple[object, ...]:
        named = self.named
        told = None if named is None else (named.vectors, named.ids, named.rows, named.dim)
        return self.vectors, self.ids, self.manifest is None, told


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What serves, where a load may find that nothing but masks has changed."""

    sources: Sources
    """Of which it was loaded."""
    masks: Masks


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadJob:
    """What to load, and how to hear from whoever asked for it."""

    name: str
    settings: IndexSettings
    sources: Sources
    served: VersionInfo | None
    """The last published version, which the guards compare with."""
    reuse: str | None
    """Digest of a version that serves on if the content turns out to be the same; None: build in any case."""
    cancelled: Callable[[], bool]
    report: Callable[[Stage, int, int], None]
    """Called with the running stage, bytes read, and bytes in all."""
    held: Held | None = None
    """Of the version that `reuse` names."""
    reread: bool = False
    """Whether every file is read, though its fingerprint is known."""
    from_copy: bool = False
    """Whether a local copy of these very files may be read in place of the store: nothing serves yet."""
    make_room: Callable[[], None] | None = None
    """`resource_preserving`: called once the load is admitted, before memory is taken."""
    live: LiveVersion | None = None
    """What the canary compares with; None: nothing serves."""
    judged: Callable[[CanaryReport], None] = lambda _: None
    """Called with what the canary found, before the load goes on or is refused for it."""
    earlier: Served | None = None
    """The version to load again, of which `sources` are; None: what the source holds."""
    pace: Pace | None = None
    """Of a load beside a version that serves; None: as fast as it can be."""
    proven: bool = False
    """Whether a version of these files has served before: neither guards nor canary stop it."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The files were touched, their content is the one that serves."""
