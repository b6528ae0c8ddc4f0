"""When a queue becomes a batch: the truth table, row by row."""

from __future__ import annotations

import pytest

from kosine.serving.flush_policy import Flush, Linger, QueueState, decide, expected_rows

WAIT = None


@pytest.mark.parametrize(
    ("law", "state", "expected"),
    [
        ("an empty queue waits", QueueState(queued=0, max_rows=8), WAIT),
        ("an empty queue waits after a linger", QueueState(queued=0, max_rows=8, linger=Linger.OVER), WAIT),
        ("an empty queue has nothing to drain", QueueState(queued=0, max_rows=8, draining=True), WAIT),
        ("one row on an idle device goes at once", QueueState(queued=1, max_rows=8), Flush.IDLE),
        (
            "what gathered while the device was busy goes when it is free",
            QueueState(queued=3, max_rows=8, gathered_while_busy=True),
            Flush.BUSY,
        ),
        (
            "a linger holds rows back",
            QueueState(queued=3, max_rows=8, linger=Linger.RUNNING, expected=4),
            WAIT,
        ),
        (
            "a linger ends when everybody is back",
            QueueState(queued=4, max_rows=8, linger=Linger.RUNNING, expected=4),
            Flush.LINGER_MET,
        ),
        (
            "a linger that is over holds nothing back",
            QueueState(queued=1, max_rows=8, linger=Linger.OVER, expected=4),
            Flush.LINGER_EXPIRED,
        ),
        (
            "a full batch waits for no linger",
            QueueState(queued=8, max_rows=8, linger=Linger.RUNNING, expected=8),
            Flush.FULL,
        ),
        ("more than a full batch is a full batch", QueueState(queued=9, max_rows=8), Flush.FULL),
        (
            "a retired version waits for no linger",
            QueueState(queued=1, max_rows=8, linger=Linger.RUNNING, expected=4, draining=True),
            Flush.DRAIN,
        ),
        ("max_rows 1 is no batching", QueueState(queued=1, max_rows=1, linger=Linger.RUNNING), Flush.FULL),
    ],
)
def test_decision(law: str, state: QueueState, expected: Flush | None) -> None:
    """Each row of the table is a law; the device is free in all of them."""
    assert expected == decide(state), law


@pytest.mark.parametrize(
    ("answered", "queued", "expected"),
    [(1, 0, 1), (16, 0, 16), (16, 4, 20), (128, 64, 128)],
)
def test_a_linger_expects_everybody_just_answered_beside_those_who_wait(
    answered: int, queued: int, expected: int
) -> None:
    """The rows that end a linger early never exceed a full batch."""
    assert expected == expected_rows(answered=answered, queued=queued, max_rows=128)
