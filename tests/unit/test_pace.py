"""A load beside others rests after a millisecond of work; one that nobody waits beside does not."""

from __future__ import annotations

import threading

import pytest

from kosine.loading.pace import BURST, Pace


class Thread:
    """Processor time that passes as it is told to, and the rests that were taken."""

    def __init__(self) -> None:
        self.worked = 0.0
        self.rests: list[float] = []

    def pace(self, share: float) -> Pace:
        return Pace(share, clock=lambda: self.worked, sleep=self.rests.append)


@pytest.mark.parametrize(("share", "rest"), [(0.5, 1.0), (0.25, 3.0), (0.8, 0.25)])
def test_a_thread_computes_its_share_of_the_time(share: float, rest: float) -> None:
    """It rests for as long as the work since its last rest was too much for the share."""
    thread = Thread()
    pace = thread.pace(share)
    pace.breathe()
    for worked in (BURST, 2 * BURST):
        thread.worked += worked
        pace.breathe()
    assert [BURST * rest, 2 * BURST * rest] == pytest.approx(thread.rests)


def test_short_pieces_add_up_to_a_burst() -> None:
    """A rest for each of thousands of small pieces would cost more than they do."""
    thread = Thread()
    pace = thread.pace(0.5)
    pace.breathe()
    for _ in range(10):
        thread.worked += BURST / 4
        pace.breathe()
    assert [BURST, BURST] == pytest.approx(thread.rests)


def test_a_load_with_all_of_the_time_never_rests() -> None:
    """Nobody is answered beside it."""
    thread = Thread()
    pace = thread.pace(1.0)
    for _ in range(3):
        thread.worked += 1.0
        pace.breathe()
        pace.rest(1.0)
    assert [] == thread.rests


def test_each_thread_rests_for_its_own_work() -> None:
    """Hashing goes on beside decoding."""
    clocks = {"decode": 0.0, "hash": 0.0}
    rests: list[tuple[str, float]] = []
    name = threading.current_thread

    def slept(seconds: float) -> None:
        rests.append((name().name, seconds))

    pace = Pace(0.5, clock=lambda: clocks[name().name], sleep=slept)

    def work(seconds: float) -> None:
        pace.breathe()
        clocks[name().name] += seconds
        pace.breathe()

    for thread in [
        threading.Thread(target=work, args=(BURST * n,), name=key) for n, key in ((1, "decode"), (2, "hash"))
    ]:
        thread.start()
        thread.join()
    assert [("decode", BURST), ("hash", 2 * BURST)] == rests
