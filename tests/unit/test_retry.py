"""When a request to a store is sent again, as tables and in virtual time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from kosine.loading.storage.errors import Kind, StoreError, from_status
from kosine.loading.storage.retry import with_retries
from kosine.retries import RetryPolicy, retry_after

if TYPE_CHECKING:
    from collections.abc import Callable

POLICY = RetryPolicy(attempts=4, first=1.0, cap=3.0)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("failures", "after", "left", "draw", "delay"),
    [
        (1, None, 60.0, 1.0, 1.0),
        (2, None, 60.0, 1.0, 2.0),
        (3, None, 60.0, 1.0, 3.0),
        (3, None, 60.0, 0.0, 0.0),
        (3, None, 60.0, 0.25, 0.75),
        (4, None, 60.0, 1.0, None),
        (1, 20.0, 60.0, 0.5, 20.5),
        (1, 20.0, 20.0, 0.5, None),
        (1, None, 0.9, 1.0, None),
        (4, 1.0, 60.0, 1.0, None),
        (10**9, None, 1e9, 1.0, None),
    ],
)
def test_the_wait_before_the_next_attempt(
    failures: int, after: float | None, left: float, draw: float, delay: float | None
) -> None:
    """N14: doubling to a cap, full jitter, never sooner than Retry-After, never past the deadline."""
    assert delay == POLICY.delay(failures, after=after, left=left, draw=draw)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, Kind.REFUSED),
        (304, Kind.CHANGED),
        (307, Kind.REFUSED),
        (400, Kind.REFUSED),
        (401, Kind.FORBIDDEN),
        (403, Kind.FORBIDDEN),
        (404, Kind.MISSING),
        (408, Kind.TRANSIENT),
        (410, Kind.MISSING),
        (412, Kind.CHANGED),
        (416, Kind.CHANGED),
        (425, Kind.TRANSIENT),
        (429, Kind.TRANSIENT),
        (500, Kind.TRANSIENT),
        (503, Kind.TRANSIENT),
        (599, Kind.TRANSIENT),
    ],
)
def test_what_a_status_means(status: int, kind: Kind) -> None:
    """N14: only what says so is missing, only what may pass is asked again."""
    assert kind == from_status(status).kind


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("99999999999999999999", 999_999_999.0),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Wed, 31 Dec 2025 23:59:00 GMT", 0.0),
        ("Thu, 01 Jan 2026 00:01:00", None),
        ("1.5", None),
        ("-1", None),
        ("\u0661", None),
        ("", None),
        (None, None),
    ],
)
def test_how_retry_after_is_read(text: str | None, seconds: float | None) -> None:
    """N14: seconds or a date; whatever else a store sends is not there."""
    assert seconds == retry_after(text, now=NOW)


class Scripted:
    """Fails as told, then succeeds; remembers when it was called."""

    def __init__(self, *failures: Exception) -> None:
        self.times: list[float] = []
        self._failures = list(failures)

    async def __call__(self) -> str:
        self.times.append(round(asyncio.get_running_loop().time(), 3))
        if self._failures:
            raise self._failures.pop(0)
        return "done"


def busy(after: float | None = None) -> StoreError:
    return StoreError(Kind.TRANSIENT, "busy", after=after)


async def ended(
    attempt: Scripted, *, within: float = 60.0, progressed: Callable[[], bool] = lambda: False
) -> str:
    """`done`, or the kind it was refused with."""
    try:
        return await with_retries(
            attempt, policy=POLICY, within=within, draw=lambda: 1.0, progressed=progressed
        )
    except StoreError as error:
        return error.kind.value


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("failures", "within", "times", "end"),
    [
        ([], 60.0, [0.0], "done"),
        ([busy(), busy(), busy()], 60.0, [0.0, 1.0, 3.0, 6.0], "done"),
        ([busy()] * 4, 60.0, [0.0, 1.0, 3.0, 6.0], "transient"),
        ([busy(7.0)], 60.0, [0.0, 8.0], "done"),
        ([busy(70.0)], 60.0, [0.0], "transient"),
        ([busy(), busy()], 2.5, [0.0, 1.0], "transient"),
        ([StoreError(Kind.FORBIDDEN, "no")], 60.0, [0.0], "forbidden"),
        ([StoreError(Kind.MISSING, "no")], 60.0, [0.0], "missing"),
        ([StoreError(Kind.CHANGED, "no")], 60.0, [0.0], "changed"),
        ([StoreError(Kind.REFUSED, "no")], 60.0, [0.0], "refused"),
        ([busy(), StoreError(Kind.FORBIDDEN, "no")], 60.0, [0.0, 1.0], "forbidden"),
    ],
)
async def test_attempts_in_time(
    failures: list[Exception], within: float, times: list[float], end: str
) -> None:
    """N14: what passes is tried again at those seconds; what stays is told at once."""
    attempt = Scripted(*failures)
    assert (end, times) == (await ended(attempt, within=within), attempt.times)


@pytest.mark.looptime
async def test_an_attempt_that_got_something_does_not_count() -> None:
    """A store that cuts every answer short is read to the end, however often it does."""
    attempt = Scripted(*[busy()] * 20)
    assert "done" == await ended(attempt, progressed=lambda: True)
    assert 21 == len(attempt.times)


@pytest.mark.looptime
async def test_an_attempt_that_hangs_ends_with_the_deadline() -> None:
    """N14: the time of all attempts together is bounded."""

    async def hang() -> str:
        await asyncio.sleep(3600)
        return "late"

    with pytest.raises(StoreError, match="more than 5 s"):
        await with_retries(hang, policy=POLICY, within=5.0, draw=lambda: 1.0)
    assert 5.0 == pytest.approx(asyncio.get_running_loop().time())
