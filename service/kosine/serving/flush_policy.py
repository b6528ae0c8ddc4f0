"""When a queue becomes a batch. Pure: a state in, a decision out; the clock and the device stay outside.

The dispatcher asks only while the device is free, so that a busy device is what gathers rows.
docs/batching.md has the truth table of the settings.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ("Flush", "Linger", "QueueState", "decide", "expected_rows")


class Flush(StrEnum):
    """Why a batch was formed."""

    FULL = "full"
    """`max_rows` were waiting."""
    IDLE = "idle"
    """The device had nothing to do when the rows came."""
    BUSY = "busy"
    """The rows gathered while the device was busy."""
    LINGER_MET = "linger_met"
    """As many rows were waiting as the last batch answered."""
    LINGER_EXPIRED = "linger_expired"
    """The linger was over first."""
    DRAIN = "drain"
    """The version is being retired: nobody new will come."""


class Linger(StrEnum):
    """The pause after a batch in which its callers may come back."""

    OFF = "off"
    RUNNING = "running"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class QueueState:
    """What the decision depends on."""

    queued: int
    max_rows: int
    linger: Linger = Linger.OFF
    expected: int = 1
    gathered_while_busy: bool = False
    draining: bool = False


def decide(state: QueueState) -> Flush | None:
    """The reason to form a batch now, or None to wait. The device must be free."""
    if not state.queued:
        return None
    if state.queued >= state.max_rows:
        return Flush.FULL
    if state.draining:
        return Flush.DRAIN
    if state.linger is Linger.RUNNING:
        return Flush.LINGER_MET if state.queued >= state.expected else None
    if state.linger is Linger.OVER:
        return Flush.LINGER_EXPIRED
    return Flush.BUSY if state.gathered_while_busy else Flush.IDLE


def expected_rows(*, answered: int, queued: int, max_rows: int) -> int:
    """Rows that end a linger early: everybody just answered asks again, beside those who wait already."""
    return min(max_rows, answered + queued)
