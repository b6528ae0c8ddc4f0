"""Alternating rounds: peers are asked in turn, again and again, so that the machine's noise hits all alike.

Only ratios within one round are compared; the table shows their median. A window begins when nobody computes
any more: a slow peer goes on for seconds with what callers asked who have left, at the next one's expense.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.bench.peers.peer import Data, Peer, Window

__all__ = ("Line", "Measured", "run_rounds", "summarise")

_LOOK_SECONDS = 0.2
_IDLE_PERCENT = 10.0
_LONGEST_SECONDS = 30.0

Measured = dict[tuple[str, int], list["Window"]]
"""Windows by peer and connections, one a round."""


@dataclass(frozen=True, slots=True)
class Line:
    """A peer at one number of connections: medians over the rounds."""

    throughput: float
    p50: float
    p99: float
    recall: float
    failed: int
    ratio: float
    """Median over rounds of (throughput of the first peer) / (throughput of this one)."""


def run_rounds(
    peers: Sequence[Peer],
    data: Data,
    *,
    connections: Sequence[int],
    rounds: int,
    seconds: float,
    say: Callable[[str], None],
) -> Measured:
    """Start all, ask all in turn, stop all; blocks. A peer that cannot start is an error."""
    measured: Measured = defaultdict(list)
    with ExitStack() as running:
        askers = {}
        for peer in peers:
            say(f"starting {peer.name}")
            askers[peer.name] = running.enter_context(peer.start(data))
        for asked in connections:
            for asker in askers.values():
                asker.ask(connections=asked, seconds=seconds / 2)
            for number in range(rounds):
                for name, asker in askers.items():
                    if not _settled():
                        say(f"others still compute; {name} is asked beside them")
                    window = asker.ask(connections=asked, seconds=seconds)
                    measured[name, asked].append(window)
                    say(f"c={asked} round {number + 1}: {name} {window.throughput:.0f}/s")
    return measured


def _settled() -> bool:
    """Wait until this machine computes next to nothing; False where it still does after half a minute."""
    deadline = monotonic() + _LONGEST_SECONDS
    while monotonic() < deadline:
        now = psutil.cpu_times_percent(interval=_LOOK_SECONDS)
        if now.user + now.system + now.nice < _IDLE_PERCENT:
            return True
    return False


def summarise(measured: Measured, *, first: str) -> dict[tuple[str, int], Line]:
    """One line for each peer and number of connections."""
    return {
        (name, asked): Line(
            throughput=median(window.throughput for window in windows),
            p50=median(window.p50 for window in windows),
            p99=median(window.p99 for window in windows),
            recall=min(window.recall for window in windows),
            failed=sum(window.failed for window in windows),
            ratio=median(
                own.throughput / window.throughput if window.throughput else float("inf")
                for own, window in zip(measured[first, asked], windows, strict=True)
            ),
        )
        for (name, asked), windows in measured.items()
    }
