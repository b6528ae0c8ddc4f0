"""When a source is looked at, waited for and loaded: pure functions from what was seen to what to do next.

A load begins only when the fingerprint was seen twice, at least `settle` apart: for a local file that is what
makes the comparison before and after the read sound (`local`), and it keeps half-written files from being
read for nothing. A file that never rests that long is given less and less: after 10 s of changes the minimum
settle does, after 15 s the attempt is given up, reported as `unsettled`, and begun again after a back-off.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from kosine.errors import LoadCode

if TYPE_CHECKING:
    from kosine.loading.source import Fingerprint

__all__ = ("Action", "Failed", "Kind", "Seen", "Situation", "backoff", "decide", "see", "unsettled_until")

MIN_SETTLE = 0.05
"""Several times the 10 ms tick of the slowest kernel clock that stamps files."""
SHRINK_AFTER = 10.0
GIVE_UP_AFTER = 15.0
MAX_BACKOFF = 60.0
_CLOCK = 0.002
"""Event loops round their time to milliseconds, and wake that much early."""

TRANSIENT = frozenset(
    {
        LoadCode.CHANGED_WHILE_READING,
        LoadCode.SOURCE_UNREADABLE,
        LoadCode.WONT_FIT,
        LoadCode.TIMED_OUT,
        LoadCode.OUT_OF_DEVICE_MEMORY,
        LoadCode.BUILD_FAILED,
        LoadCode.UNSETTLED,
        LoadCode.DEFECT,
    }
)
"""Worth another try with the same bytes."""
POLLED = frozenset(
    {LoadCode.SOURCE_MISSING, LoadCode.SOURCE_FORBIDDEN, LoadCode.BAD_GOLDEN, LoadCode.VERSION_GONE}
)
"""Somebody has to put it right; looked for at every poll."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A fingerprint and since when it has been the same. Times are the event loop's, in seconds."""

    token: str
    resolution: float
    first: float
    """End of the first look that found it."""
    last: float
    """Start of the latest look that found it."""
    since: float
    """When the run of changes began that this fingerprint is the latest of."""
    rested: bool = False
    """Whether that run is over: the look led to anything else than settling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The last failure since the last good load."""

    code: LoadCode
    token: str | None
    """What was being loaded; None when the look itself failed."""
    at: float
    consecutive: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """Everything `decide` looks at, taken right after a look."""

    now: float
    interval: float
    """Seconds to the next poll, jitter included."""
    settle: float
    loaded: str | None = None
    """Fingerprint of the version that serves; None where there is none, or its settings are outdated."""
    seen: Seen | None = None
    """None when the look failed."""
    failed: Failed | None = None
    forced: bool = False
    pinned: bool = False
    """Whether a version is served whatever the source holds."""


class Kind(StrEnum):
    """What comes next."""

    WAIT = "wait"
    """Nothing to do before `until`: the source cannot be seen, or a failed load is not to be retried yet."""
    UNCHANGED = "unchanged"
    """What is seen is what serves; poll at `until`."""
    HELD = "held"
    """What is seen is something else than the pinned version; poll at `until`."""
    SETTLE = "settle"
    """Look again at `until`."""
    LOAD = "load"
    GIVE_UP = "give_up"
    """The source never rests; report it."""


@dataclass(frozen=True, slots=True)
class Action:
    """`until` is in the loop's time; any hint, force or new setting ends the wait early."""

    kind: Kind
    until: float = 0.0


def see(before: Seen | None, fingerprint: Fingerprint, *, began: float, ended: float) -> Seen:
    """Fold one look into what was seen before it."""
    if before is not None and before.token == fingerprint.token:
        return replace(before, last=began)
    since = before.since if before is not None and not before.rested else ended
    return Seen(
        token=fingerprint.token, resolution=fingerprint.resolution, first=ended, last=ended, since=since
    )


def unsettled_until(seen: Seen, *, now: float, settle: float) -> float | None:
    """When `seen` may be read, should it still be the same then; None: now."""
    floor = max(MIN_SETTLE, seen.resolution)
    ready = seen.first + (floor if now - seen.since >= SHRINK_AFTER else max(settle, floor))
    return None if seen.last >= ready - _CLOCK else max(now, ready)


def backoff(consecutive: int) -> float:
    """Seconds to wait after so many failures in a row: 1, 2, 4, ... 60.

    >>> [backoff(n) for n in (1, 2, 7, 1000)]
    [1.0, 2.0, 60.0, 60.0]
    """
    return min(MAX_BACKOFF, 2.0 ** min(consecutive - 1, 10))


def decide(situation: Situation) -> Action:
    """What to do after a look. Idempotent: the same situation gives the same action."""
    seen, now = situation.seen, situation.now
    poll = now + situation.interval
    if seen is None:
        return Action(Kind.WAIT, min(poll, _retry_at(situation) or poll))
    if situation.pinned:
        return Action(Kind.UNCHANGED if seen.token == situation.loaded else Kind.HELD, poll)
    if not situation.forced:
        if seen.token == situation.loaded:
            return Action(Kind.UNCHANGED, poll)
        if situation.failed is not None and situation.failed.token == seen.token:
            retry = _retry_at(situation)
            if retry is None or now < retry:
                return Action(Kind.WAIT, poll if retry is None else min(poll, retry))
    ready = unsettled_until(seen, now=now, settle=MIN_SETTLE if situation.forced else situation.settle)
    if ready is None:
        return Action(Kind.LOAD)
    if now - seen.since >= GIVE_UP_AFTER:
        return Action(Kind.GIVE_UP)
    return Action(Kind.SETTLE, ready)


def _retry_at(situation: Situation) -> float | None:
    """When what failed is tried again with nothing changed; None: when something changes."""
    failed = situation.failed
    if failed is None:
        return None
    if failed.code in TRANSIENT:
        return failed.at + backoff(failed.consecutive)
    return failed.at + situation.interval if failed.code in POLLED else None
