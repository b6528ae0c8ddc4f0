"""When excluded rows are dropped from a few more results, and what is left then."""

from __future__ import annotations

import numpy as np
import pytest

from kosine.engines.filters import RowFilter
from kosine.engines.over_fetch import OverFetch, drop


@pytest.mark.parametrize(
    ("outcomes", "tried"),
    [
        ("", True),
        ("short", True),
        ("short short", False),
        ("short fine short", False),
        ("fine short", True),
        ("short fine fine fine fine short fine", False),
        ("short fine fine fine fine fine fine fine fine fine fine short", True),
        ("short short" + " fine" * 4, True),
    ],
)
def test_calls_that_turn_out_badly_more_than_seldom_are_not_made(outcomes: str, tried: bool) -> None:
    """One in ten, the latest counting most."""
    way = OverFetch()
    for outcome in outcomes.split():
        way.learn(short=outcome == "short")
    assert tried is way.is_worth_trying()


def test_a_way_that_was_given_up_is_tried_again_now_and_then() -> None:
    """Callers change; once in 64 calls costs nothing."""
    way = OverFetch()
    way.learn(short=True)
    way.learn(short=True)
    assert 4 == [way.is_worth_trying() for _ in range(256)].count(True)


def test_what_is_left_keeps_its_order_and_short_queries_are_named() -> None:
    """Of four results two are wanted."""
    found = np.array([[9, 7, 5, 3]] * 5, np.int32)
    scores = np.array([[0.9, 0.7, 0.5, 0.3]] * 5, np.float32)
    lists: list[list[int] | None] = [[4], [7, 9], [9, 8, 5, 3], None, [7]]
    filters = [None if each is None else RowFilter(excluded=np.array(each, np.int32)) for each in lists]

    rows, left, short = drop(found, scores, filters, 2, rows=10)

    assert [2] == short
    assert [[9, 7], [5, 3], [9, 7], [9, 5]] == rows[[0, 1, 3, 4]].tolist()
    assert np.array([[0.9, 0.7], [0.5, 0.3], [0.9, 0.7], [0.9, 0.5]], np.float32).tolist() == (
        left[[0, 1, 3, 4]].tolist()
    )
