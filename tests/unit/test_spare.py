"""Few rows left out of a search that finds a little more than was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosine.engines.filters import RowFilter
from kosine.engines.spare import SPARE, SpareResults, drop, excluded_by, left_out


def numbers(*rows: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(rows, np.int32)


def test_what_each_query_leaves_out_stands_in_a_row_of_its_own() -> None:
    """Filled up with -1, which is no row."""
    filters = [None, RowFilter(excluded=numbers(7, 3)), RowFilter(), RowFilter(excluded=numbers(5))]
    assert [[-1, -1], [7, 3], [-1, -1], [5, -1]] == left_out(excluded_by(filters), 2).tolist()
    assert [[], []] == left_out(excluded_by([None, RowFilter()]), 0).tolist()


@given(
    found=st.lists(st.permutations(range(12)).map(lambda rows: rows[:6]), min_size=1, max_size=4),
    out=st.lists(st.sets(st.integers(0, 11), max_size=6), min_size=4, max_size=4),
    k=st.integers(1, 6),
)
def test_the_first_k_that_are_not_left_out_are_kept_in_their_order(
    found: list[list[int]], out: list[set[int]], k: int
) -> None:
    """Each with its score; whoever has fewer than k left is named, and nobody else."""
    rows = np.array(found, np.int32)
    excluded = left_out([numbers(*each) for each in out[: len(found)]], 6)
    kept, scores, short = drop(rows, -rows.astype(np.float32), excluded, k)
    left = [[row for row in each if row not in out[query]] for query, each in enumerate(found)]
    assert [query for query, each in enumerate(left) if len(each) < k] == short.tolist()
    for query in set(range(len(found))) - set(short.tolist()):
        assert left[query][:k] == kept[query].tolist()
        assert [-row for row in left[query][:k]] == scores[query].tolist()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"k": 10, "rows": 10 + SPARE, "queries": 64, "most": 100}, True),
        ({"k": 10, "rows": 9 + SPARE, "queries": 64, "most": 100}, False),
        ({"k": 1000, "rows": 100_000, "queries": 64, "most": 100}, False),
        ({"k": 1000, "rows": 100_000, "queries": 1, "most": 100}, True),
    ],
)
def test_it_is_tried_where_there_are_rows_to_spare_and_little_to_compare(
    asked: dict[str, int], expected: bool
) -> None:
    """Else rows are left out of the scores."""
    assert expected is SpareResults().worth_trying(**asked)


def test_it_is_given_up_while_second_calls_are_common_and_tried_again_now_and_then() -> None:
    """Two calls in which everybody is short are enough; one in 64 goes on asking whether that has changed."""
    spare = SpareResults()
    usual = {"k": 10, "rows": 100_000, "queries": 64, "most": 100}
    for tried in (True, True, False):
        assert tried is spare.worth_trying(**usual)
        spare.note(short=64, queries=64)
    tries = [spare.worth_trying(**usual) for _ in range(640)]
    assert 10 == sum(tries)
    for _ in range(30):
        spare.note(short=0, queries=64)
    assert all(spare.worth_trying(**usual) for _ in range(100))


def test_one_query_in_a_hundred_that_is_short_changes_nothing() -> None:
    """Of ids drawn at random few are among the best, and a second call of one query costs little."""
    spare = SpareResults()
    for call in range(200):
        spare.note(short=int(call % 4 == 0), queries=64)
        assert spare.worth_trying(k=10, rows=100_000, queries=64, most=100)


def test_one_result_more_is_enough_until_somebody_was_short() -> None:
    """Then two, as long as it shows."""
    spare = SpareResults()
    assert 1 == spare.results
    spare.note(short=1, queries=64)
    assert SPARE == spare.results
    for _ in range(20):
        spare.note(short=0, queries=64)
    assert 1 == spare.results
