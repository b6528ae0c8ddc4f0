"""From what was measured to passed or failed: pure, one function a check, all numbers in percent.

A check that fails refuses the load with `canary_failed`. What all of them found is reported, whatever came of
it: a value that creeps towards its threshold is seen before it gets there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kosine.errors import LoadCode, LoadError
from kosine.serving.status import CanaryCheck

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kosine.errors import Stage

__all__ = (
    "Found",
    "Overlap",
    "golden_check",
    "overlap_check",
    "overlap_of",
    "refuse_failed",
    "row_drift_check",
)

_SHOWN = 5

Id = int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What became of one golden query."""

    number: int
    """In the file, from 0."""
    least: float
    """Share of the expected ids that must be found."""
    expected: int
    missed: tuple[Id, ...]
    unknown: bool = False
    """Whether the query names an item that the new version does not hold."""

    @property
    def share(self) -> float:
        """Of the expected ids."""
        return 1.0 - len(self.missed) / self.expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """Neighbours of the sampled items that both versions name."""

    sampled: int
    compared: int
    shared: int


def row_drift_check(*, rows: int, served: int | None, most: float) -> CanaryCheck:
    """`row_drift`: rows more or fewer than the version that serves has, as a share of those.

    >>> [row_drift_check(rows=rows, served=100, most=10).outcome for rows in (90, 111)]
    ['passed', 'failed']
    """
    if served is None:
        return CanaryCheck(name="row_drift", outcome="skipped", expected=most, detail="nothing serves yet")
    drift = 100.0 * abs(rows - served) / served
    return CanaryCheck(
        name="row_drift",
        outcome="passed" if drift <= most else "failed",
        expected=most,
        came=round(drift, 3),
        detail=f"{rows} rows, where {served} are served",
    )


def golden_check(found: Sequence[Found]) -> CanaryCheck:
    """`golden`: every query finds its share; told is the one that passed most narrowly, or failed most."""
    worst = min(found, key=lambda each: (each.share - each.least, each.number))
    passed = sum(_is_good(each) for each in found)
    detail = f"{passed} of {len(found)} queries found what they must"
    if not _is_good(worst):
        missed = ", ".join(ascii(each) for each in worst.missed[:_SHOWN])
        why = "the item it asks by is gone" if worst.unknown else f"not found: {missed}"
        detail = f"{detail}; query {worst.number}: {why}"
    return CanaryCheck(
        name="golden",
        outcome="passed" if passed == len(found) else "failed",
        expected=round(100.0 * worst.least, 3),
        came=round(100.0 * worst.share, 3),
        detail=detail,
    )


def _is_good(found: Found) -> bool:
    # Shares are fractions of small whole numbers: a third of three is one, whatever floats make of it.
    return found.share >= found.least - 1e-9


def overlap_of(pairs: Iterable[tuple[Sequence[Id], Sequence[Id]]], k: int) -> Overlap:
    """Of the neighbours of each item, best first: by the version that serves, and by the new one.

    Both name only items that both versions hold, so the first m of each, m being what the shorter one names,
    are the exact top m among those, and newcomers are no difference. At most `k` are compared.

    >>> overlap_of([([1, 2, 3], [2, 1, 9]), ([4], [5, 6])], k=2)
    Overlap(sampled=2, compared=3, shared=2)
    """
    sampled = compared = shared = 0
    for live, new in pairs:
        most = min(len(live), len(new), k)
        sampled += 1
        compared += most
        shared += len(set(live[:most]) & set(new[:most]))
    return Overlap(sampled=sampled, compared=compared, shared=shared)


def overlap_check(overlap: Overlap | None, *, least: float) -> CanaryCheck:
    """`overlap`: how much of the neighbourhoods stayed as it was; None: nothing serves yet."""
    if overlap is None:
        return CanaryCheck(name="overlap", outcome="skipped", expected=least, detail="nothing serves yet")
    if not overlap.sampled:
        return CanaryCheck(
            name="overlap",
            outcome="failed",
            expected=least,
            came=0.0,
            detail="none of the sampled items of the version that serves is in the new one",
        )
    share = 100.0 * overlap.shared / overlap.compared if overlap.compared else 0.0
    return CanaryCheck(
        name="overlap",
        outcome="passed" if share >= least else "failed",
        expected=least,
        came=round(share, 3),
        detail=f"{overlap.shared} of {overlap.compared} neighbours of {overlap.sampled} items are the same",
    )


_RULES = {
    "row_drift": "canary.max_row_drift_percent allows",
    "golden": "min_found expects",
    "overlap": "canary.min_overlap_percent expects",
}


def refuse_failed(checks: Sequence[CanaryCheck], *, stage: Stage) -> None:
    """LoadError `canary_failed` for the first check that failed."""
    for check in checks:
        if check.outcome == "failed":
            raise LoadError(
                LoadCode.CANARY_FAILED,
                f"{check.name}: {_RULES[check.name]} {check.expected:g} %, {check.came:g} % came: "
                f"{check.detail}; publish a better file, or look at the threshold",
                stage=stage,
                check=check.name,
                expected=check.expected,
                came=check.came,
            )
