"""The named masks of one version: which of its items a query may find, by a name that the query gives.

Immutable as a whole. A request takes the masks of its version once, so it sees one state of each, from its
first check to its last row, whatever is published meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kosine.errors import UnknownMask

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    import numpy as np
    from numpy.typing import NDArray

__all__ = ("FileRows", "Masks", "NamedMask")

_SHOWN = 80


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FileRows:
    """Which rows of the file a version holds."""

    count: int
    """Of the file."""
    kept: NDArray[np.bool_] | None = None
    """[count]; None: all."""

    def narrowed(self, flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A flag a row of the version, of `flags` [count]."""
        return flags if self.kept is None else flags[self.kept]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NamedMask:
    """One mask as it was read."""

    flags: NDArray[np.bool_]
    """[rows of the version], read-only."""
    true: int
    """How many of them are."""
    digest: str
    """SHA-256 of the file, in hex."""
    loaded_at: datetime

    @property
    def short_digest(self) -> str:
        """As it is shown: 16 hex digits."""
        return self.digest[:16]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Masks:
    """All masks of a version by name, and the rows that later ones have to fit."""

    rows: FileRows
    named: Mapping[str, NamedMask] = field(default_factory=dict)

    @property
    def digests(self) -> dict[str, str]:
        """What tells whether two states of masks of one version are the same."""
        return {name: mask.digest for name, mask in self.named.items()}

    def find(self, name: str) -> NamedMask:
        """The mask of that name, with the same flags for every query. Raises UnknownMask."""
        mask = self.named.get(name)
        if mask is not None:
            return mask
        known, shown = sorted(self.named), ascii(name)[:_SHOWN]
        told = f"known are {', '.join(known)}" if known else "it has none"
        raise UnknownMask(f"this index has no mask {shown}; {told}", mask=shown, known=known)
