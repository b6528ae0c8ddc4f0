"""Which requests a reload may have touched. Windows with reloads and windows without alternate in one run.

Noise of the machine then hits both alike. A request is `during` a reload when its lifetime (intended send
to answer) overlaps the time from the rename of the file to the moment its version was seen served; it is
`without` when it lies in a quiet window and overlaps no reload. The rest is `between`: in a window with
reloads, but in none of them; there the old version is freed, for example.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from kosine.bench.percentiles import Percentiles, percentiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ("Reload", "ReloadReport", "Sorted", "Window", "plan_windows", "reload_report", "sort_requests")


@dataclass(frozen=True, slots=True)
class Window:
    """Seconds from the start of the load; `renames` are due in it, none where it is quiet."""

    start: float
    stop: float
    renames: tuple[float, ...] = ()


class Reload(Struct, frozen=True, kw_only=True):
    """One replaced file. Seconds from the start of the load."""

    renamed: float
    seen: float
    """The index named the new version for the first time."""


class ReloadReport(Struct, frozen=True, kw_only=True):
    """Latency with and without reloads, of answered requests, in milliseconds."""

    every_seconds: float
    planned: int
    reloads: list[Reload]
    """Those that were begun: one that is due waits for the one before, within its window."""
    mean_reload_seconds: float | None
    during: Percentiles | None
    without: Percentiles | None
    between: Percentiles | None
    p99_ratio: float | None
    """p99 during / p99 without."""
    max_ratio: float | None


def plan_windows(seconds: float, every: float) -> list[Window]:
    """Quiet and reloading windows in turn, each about twice `every` long, the first one quiet.

    >>> plan_windows(8, 2)
    [Window(start=0.0, stop=4.0, renames=()), Window(start=4.0, stop=8.0, renames=(4.0, 6.0))]
    """
    count = 2 * max(1, round(seconds / (4 * every)))
    width = seconds / count
    renames = max(1, math.floor(width / every + 1e-9))
    windows = []
    for number in range(count):
        start = number * width
        due = tuple(start + turn * every for turn in range(renames)) if number % 2 else ()
        windows.append(Window(start, start + width, due))
    return windows


@dataclass(frozen=True, slots=True)
class Sorted:
    """Which requests belong where; boolean, one for each request, exactly one of the three is true."""

    during: NDArray[np.bool_]
    without: NDArray[np.bool_]
    between: NDArray[np.bool_]


def sort_requests(
    start: NDArray[np.float64],
    stop: NDArray[np.float64],
    *,
    windows: Sequence[Window],
    reloads: Sequence[Reload],
) -> Sorted:
    """Lifetimes `start[i]..stop[i]`, in seconds from the start of the load."""
    during = np.zeros(len(start), dtype=np.bool_)
    for reload in reloads:
        during |= (start <= reload.seen) & (stop >= reload.renamed)
    quiet = np.zeros(len(start), dtype=np.bool_)
    for window in windows:
        if not window.renames:
            quiet |= (start >= window.start) & (start < window.stop)
    return Sorted(during=during, without=quiet & ~during, between=~quiet & ~during)


def reload_report(
    start: NDArray[np.float64],
    stop: NDArray[np.float64],
    *,
    windows: Sequence[Window],
    reloads: Sequence[Reload],
    every: float,
) -> ReloadReport:
    """Of answered requests."""
    kinds = sort_requests(start, stop, windows=windows, reloads=reloads)
    latency = stop - start
    during, without = percentiles(latency[kinds.during]), percentiles(latency[kinds.without])
    spans = [reload.seen - reload.renamed for reload in reloads]
    return ReloadReport(
        every_seconds=every,
        planned=sum(len(window.renames) for window in windows),
        reloads=list(reloads),
        mean_reload_seconds=round(sum(spans) / len(spans), 4) if spans else None,
        during=during,
        without=without,
        between=percentiles(latency[kinds.between]),
        p99_ratio=round(during.p99 / without.p99, 3) if during and without else None,
        max_ratio=round(during.max / without.max, 3) if during and without else None,
    )
