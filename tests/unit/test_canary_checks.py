"""Checks of a new version as tables: what was measured, and what becomes of it."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.canary import checks
from kosine.loading.canary.checks import (
    Found,
    Overlap,
    golden_check,
    overlap_check,
    overlap_of,
    refuse_failed,
    row_drift_check,
)


def test_the_examples_are_true() -> None:
    """What the docstrings show is what comes."""
    assert (0, True) == (doctest.testmod(checks).failed, doctest.testmod(checks).attempted > 0)


@pytest.mark.parametrize(
    ("rows", "served", "most", "outcome", "came"),
    [
        (100, None, 0, "skipped", None),
        (100, 100, 0, "passed", 0.0),
        (110, 100, 10, "passed", 10.0),
        (90, 100, 10, "passed", 10.0),
        (111, 100, 10, "failed", 11.0),
        (89, 100, 10, "failed", 11.0),
        (301, 100, 200, "failed", 201.0),
        (1, 3, 66.66, "failed", 66.667),
    ],
)
def test_row_drift(rows: int, served: int | None, most: float, outcome: str, came: float | None) -> None:
    """Growth and shrink count alike, as a share of what serves; the bound is inclusive."""
    check = row_drift_check(rows=rows, served=served, most=most)
    assert ("row_drift", outcome, most, came) == (check.name, check.outcome, check.expected, check.came)


def found(number: int = 0, *, least: float = 1.0, expected: int = 4, missed: int = 0) -> Found:
    return Found(number=number, least=least, expected=expected, missed=tuple(range(missed)))


@pytest.mark.parametrize(
    ("queries", "outcome", "expected", "came", "told"),
    [
        ([found()], "passed", 100.0, 100.0, "1 of 1 queries found what they must"),
        ([found(least=0.5, missed=2), found(1)], "passed", 50.0, 50.0, "2 of 2 queries"),
        ([found(), found(1, least=0.6, missed=2)], "failed", 60.0, 50.0, "1 of 2 queries"),
        ([found(missed=1), found(1, missed=4)], "failed", 100.0, 0.0, "query 1: not found: 0, 1, 2, 3"),
        ([found(least=1 / 3, expected=3, missed=2)], "passed", 33.333, 33.333, "1 of 1"),
        ([found(expected=30, missed=30)], "failed", 100.0, 0.0, "not found: 0, 1, 2, 3, 4"),
    ],
)
def test_golden(queries: list[Found], outcome: str, expected: float, came: float, told: str) -> None:
    """All have to find their share; the worst of them is told, with some of what it missed."""
    check = golden_check(queries)
    assert ("golden", outcome, expected, came) == (check.name, check.outcome, check.expected, check.came)
    assert told in check.detail


def test_golden_tells_of_a_query_whose_item_is_gone() -> None:
    """It has nothing to ask by."""
    check = golden_check([Found(number=7, least=0.1, expected=1, missed=(5,), unknown=True)])
    assert ("failed", "query 7: the item it asks by is gone") == (check.outcome, check.detail.split("; ")[1])


@pytest.mark.parametrize(
    ("overlap", "least", "outcome", "came"),
    [
        (None, 90, "skipped", None),
        (Overlap(sampled=2, compared=20, shared=18), 90, "passed", 90.0),
        (Overlap(sampled=2, compared=20, shared=17), 90, "failed", 85.0),
        (Overlap(sampled=0, compared=0, shared=0), 0, "failed", 0.0),
        (Overlap(sampled=5, compared=0, shared=0), 50, "failed", 0.0),
        (Overlap(sampled=5, compared=0, shared=0), 0, "passed", 0.0),
    ],
)
def test_overlap(overlap: Overlap | None, least: float, outcome: str, came: float | None) -> None:
    """Inclusive; versions without a common item are not alike, whatever the threshold."""
    check = overlap_check(overlap, least=least)
    assert ("overlap", outcome, least, came) == (check.name, check.outcome, check.expected, check.came)


@given(
    common=st.permutations(range(12)),
    gone=st.lists(st.integers(0, 12), max_size=4),
    come=st.lists(st.integers(0, 12), max_size=4),
    k=st.integers(1, 12),
)
def test_items_that_come_and_go_are_no_difference(
    common: list[int], gone: list[int], come: list[int], k: int
) -> None:
    """With the order of what both hold unchanged all is shared, wherever others stood in between."""
    depth = 2 * k
    old, new = with_others(common, gone, 100)[:depth], with_others(common, come, 200)[:depth]
    held = [[each for each in names if each < 100] for names in (old, new)]
    overlap = overlap_of([(held[0], held[1])], k)
    assert (1, overlap.compared) == (overlap.sampled, overlap.shared)
    assert overlap.compared == min(k, *map(len, held))


def with_others(names: list[int], places: list[int], first: int) -> list[int]:
    mixed = list(names)
    for number, place in enumerate(places):
        mixed.insert(place, first + number)
    return mixed


@given(lists=st.lists(st.permutations(range(8)), min_size=2, max_size=2), k=st.integers(1, 8))
def test_what_is_shared_is_the_same_either_way_round(lists: list[list[int]], k: int) -> None:
    """Overlap has no direction."""
    assert overlap_of([(lists[0], lists[1])], k) == overlap_of([(lists[1], lists[0])], k)


def test_the_first_failed_check_refuses_and_says_what_was_expected() -> None:
    """Code, stage, name of the check, threshold and what came."""
    passed = row_drift_check(rows=1, served=None, most=5)
    failed = overlap_check(Overlap(sampled=1, compared=4, shared=1), least=60)
    refuse_failed([passed], stage=Stage.CANARY)
    with pytest.raises(LoadError) as caught:
        refuse_failed([passed, failed], stage=Stage.CANARY)
    assert (LoadCode.CANARY_FAILED, Stage.CANARY) == (caught.value.code, caught.value.stage)
    assert {"check": "overlap", "expected": 60, "came": 25.0} == caught.value.facts
    assert "canary.min_overlap_percent expects 60 %, 25 % came" in caught.value.detail
