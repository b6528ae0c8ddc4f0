"""Which requests a reload may have touched."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosine.bench.reloads import Reload, Window, plan_windows, reload_report, sort_requests

QUIET, BUSY = Window(0, 4), Window(4, 8, (4.0, 6.0))
RELOAD = Reload(renamed=4.0, seen=5.0)


@given(st.floats(0.1, 100), st.floats(0.05, 50))
def test_windows_take_turns_and_cover_the_load(seconds: float, every: float) -> None:
    """As much time with reloads as without; every rename begins in its window, the first at its start."""
    windows = plan_windows(seconds, every)
    assert 0.0 == windows[0].start
    assert seconds == pytest.approx(windows[-1].stop)
    for before, after in pairwise(windows):
        assert before.stop == pytest.approx(after.start)
        assert bool(before.renames) is not bool(after.renames)
    assert [] == [*windows[0].renames]
    for window in windows[1::2]:
        assert window.start == window.renames[0]
        assert window.renames[-1] < window.stop
        assert np.diff(window.renames) == pytest.approx(every)


@pytest.mark.parametrize(
    ("start", "stop", "kind"),
    [
        (1.0, 1.1, "without"),
        (3.9, 3.99, "without"),
        (3.9, 4.0, "during"),
        (3.9, 9.0, "during"),
        (4.5, 4.6, "during"),
        (5.0, 5.1, "during"),
        (5.01, 5.1, "between"),
        (3.5, 3.6, "without"),
        (7.9, 8.1, "between"),
    ],
)
def test_a_request_is_where_its_lifetime_is(start: float, stop: float, kind: str) -> None:
    """Touching the reload at either end is enough; one that began before and ends after it counts."""
    found = sort_requests(np.array([start]), np.array([stop]), windows=[QUIET, BUSY], reloads=[RELOAD])
    flags = {"during": found.during[0], "without": found.without[0], "between": found.between[0]}
    assert {name: name == kind for name in flags} == flags


def test_a_late_reload_in_a_quiet_window_spoils_only_what_it_touched() -> None:
    """A slow reload is not hidden in the figure it is compared with."""
    late = Reload(renamed=7.9, seen=9.0)
    windows = [Window(0, 4), Window(4, 8, (7.9,)), Window(8, 12)]
    found = sort_requests(np.array([8.5, 9.5]), np.array([8.6, 9.6]), windows=windows, reloads=[late])
    assert [True, False] == found.during.tolist()
    assert [False, True] == found.without.tolist()


@given(st.lists(st.tuples(st.floats(0, 12), st.floats(0, 3)), max_size=30), st.integers(0, 3))
def test_every_request_is_in_exactly_one_class(lifetimes: list[tuple[float, float]], count: int) -> None:
    """Nothing is counted twice or lost."""
    start = np.array([begin for begin, _ in lifetimes])
    stop = start + np.array([length for _, length in lifetimes])
    reloads = [Reload(renamed=3.0 * number, seen=3.0 * number + 1) for number in range(count)]
    found = sort_requests(start, stop, windows=plan_windows(12, 1.5), reloads=reloads)
    total = found.during.astype(int) + found.without.astype(int) + found.between.astype(int)
    assert [1] * len(lifetimes) == total.tolist()


def test_the_report_compares_p99_during_with_p99_without() -> None:
    """Twenty times as slow during a reload is a ratio of twenty; the sizes of the classes add up."""
    start = np.arange(0, 8, 0.01)
    latency = np.where((start >= 4.0) & (start <= 5.0), 0.01, 0.0005)
    latency[::20] *= 2
    found = reload_report(start, start + latency, windows=[QUIET, BUSY], reloads=[RELOAD], every=2)
    assert found.during is not None
    assert found.without is not None
    assert found.between is not None
    assert (20.0, 1.0, 1.0) == (found.during.p99, found.without.p99, found.between.p99)
    assert (20.0, 20.0, 1.0, 2) == (
        found.p99_ratio,
        found.max_ratio,
        found.mean_reload_seconds,
        found.planned,
    )
    assert len(start) == found.during.count + found.without.count + found.between.count


def test_without_reloads_there_is_no_ratio() -> None:
    """Unknown is null."""
    found = reload_report(np.array([1.0]), np.array([1.1]), windows=[QUIET, BUSY], reloads=[], every=2)
    assert (None, None, None) == (found.p99_ratio, found.mean_reload_seconds, found.during)
