"""What the queries of a load may find: rows that each excludes, drawn from the seed, and a mask. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kosine.errors import StartupError
from kosine.settings import MASK_NAME_PATTERN

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ("FilterPlan", "Findable", "draw_excluded")

_STREAM = 1
"""Keeps what is drawn here apart from vectors and queries of the same seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterPlan:
    """What every filtered query carries; at least one part."""

    exclude: int = 0
    """So many rows, drawn for each query anew."""
    mask: str | None = None
    not_mask: str | None = None
    mask_file: Path | None = None
    """Of either."""
    mask_share: float | None = None
    """Of the rows, true in a mask that the bench makes."""

    def __post_init__(self) -> None:
        """Raises StartupError where the parts do not go together."""
        if self.mask is not None and self.not_mask is not None:
            raise StartupError("--mask and --not-mask: expected one of them")
        name = self.mask_name
        if name is None and (self.mask_file is not None or self.mask_share is not None):
            raise StartupError(
                "--mask-file and --mask-share are of a mask: name it with --mask or --not-mask"
            )
        if name is not None and re.fullmatch(MASK_NAME_PATTERN, name) is None:
            raise StartupError(
                f"--mask: expected 1 to 63 of a-z, 0-9, and inner hyphens or underscores, got {name!r}"
            )
        if self.mask_file is not None and self.mask_share is not None:
            raise StartupError("--mask-share is of a mask that is made: leave it or --mask-file away")

    @property
    def mask_name(self) -> str | None:
        """Whichever way it is used."""
        return self.mask if self.mask is not None else self.not_mask

    def __bool__(self) -> bool:
        """Whether there is any part."""
        return bool(self.exclude) or self.mask_name is not None

    def fields(self, excluded: NDArray[np.int64] | None) -> dict[str, object]:
        """What a JSON body says of it.

        >>> FilterPlan(exclude=2, not_mask="adult").fields(np.array([7, 3]))
        {'exclude': [7, 3], 'not_mask': 'adult'}
        """
        named = {"mask": self.mask, "not_mask": self.not_mask}
        parts: dict[str, object] = {name: mask for name, mask in named.items() if mask is not None}
        return parts if excluded is None else {"exclude": excluded.tolist(), **parts}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Findable:
    """Which rows each query may find."""

    excluded: NDArray[np.int64] | None = None
    """[queries, n], each row once a query."""
    flags: NDArray[np.bool_] | None = None
    """[rows]: nothing but where it is true."""

    def counts(self, *, queries: int, rows: int) -> NDArray[np.int64]:
        """[queries]: how many rows each may find."""
        all_of_them = rows if self.flags is None else int(self.flags.sum())
        counts = np.full(queries, all_of_them, np.int64)
        if self.excluded is None:
            return counts
        taken = np.ones_like(self.excluded, np.bool_) if self.flags is None else self.flags[self.excluded]
        found: NDArray[np.int64] = counts - taken.sum(axis=1)
        return found

    def allows(self, query: int, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[n]: which of `rows` [n] that query may find."""
        allowed = np.ones(len(rows), np.bool_) if self.flags is None else self.flags[rows]
        return allowed if self.excluded is None else allowed & ~np.isin(rows, self.excluded[query])

    def hide(self, scores: NDArray[np.float32], *, first: int) -> None:
        """Make `scores` [queries, n], of the rows from `first` on, -inf where the row may not be found."""
        last = first + scores.shape[1]
        if self.flags is not None:
            scores[:, ~self.flags[first:last]] = -np.inf
        if self.excluded is not None:
            queries, at = np.nonzero((self.excluded >= first) & (self.excluded < last))
            scores[queries, self.excluded[queries, at] - first] = -np.inf


def draw_excluded(count: int, *, queries: int, rows: int, seed: int) -> NDArray[np.int64]:
    """[queries, count]: distinct rows for each query. Raises StartupError where there are not as many."""
    if count > rows:
        raise StartupError(f"--exclude: expected at most the {rows} rows of the index, got {count}")
    rng = np.random.default_rng([seed, _STREAM])
    return np.stack([rng.choice(rows, count, replace=False, shuffle=False) for _ in range(queries)])
