"""An engine that fails on everything is not asked for ever."""

from __future__ import annotations

from kosine.serving.breaker import Breaker


def test_a_run_of_whole_failures_opens_it_and_one_trial_a_second_passes() -> None:
    """H21: after three failed batches queries are refused, but for one trial each second."""
    breaker = Breaker(threshold=3, retry_after=1.0)
    for at in (0.0, 0.1):
        breaker.record(good=False, now=at)
        assert breaker.allows(at)
    breaker.record(good=False, now=0.2)

    allowed = [at for at in (0.3, 0.9, 1.2, 1.3, 2.1, 2.2, 2.3) if breaker.allows(at)]

    assert [1.2, 2.2] == allowed


def test_one_good_row_closes_it() -> None:
    """H21: the first answer after a run of failures lets everybody in again."""
    breaker = Breaker(threshold=1)
    breaker.record(good=False, now=0.0)
    assert breaker.is_open

    breaker.record(good=True, now=1.5)

    assert breaker.allows(1.5)
    assert breaker.allows(1.5)
