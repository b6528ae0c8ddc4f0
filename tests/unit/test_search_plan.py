"""The sizes of a search, as tables."""

from __future__ import annotations

import pytest

from kosine.engines.matrix import BLOCK
from kosine.engines.search_plan import (
    SCORES_BUDGET,
    block_width,
    bucket_of,
    k_buckets,
    queries_per_call,
    scratch_bytes,
)


@pytest.mark.parametrize(
    ("max_k", "rows", "expected"),
    [
        (1, 1, (1,)),
        (1000, 1, (1,)),
        (10, 100_000, (10,)),
        (16, 100_000, (16,)),
        (17, 100_000, (16, 17)),
        (1000, 100_000, (16, 128, 512, 1000)),
        (1000, 128, (16, 128)),
        (1000, 129, (16, 128, 129)),
        (16384, 1_000_000, (16, 128, 512, 2048, 8192, 16384)),
    ],
)
def test_buckets_grow_to_the_largest_answer_there_can_be(
    max_k: int, rows: int, expected: tuple[int, ...]
) -> None:
    """Buckets ascend, end at min(max_k, rows), and never hold more than there are rows."""
    assert expected == k_buckets(max_k, rows)


@pytest.mark.parametrize("max_k", [1, 5, 16, 17, 1000, 16384])
@pytest.mark.parametrize("rows", [1, 16, 300, 20_000])
def test_every_k_has_a_bucket_that_holds_its_answer(max_k: int, rows: int) -> None:
    """For every k up to max_k the chosen bucket is at least min(k, rows), and is the smallest such."""
    buckets = k_buckets(max_k, rows)
    for k in range(1, max_k + 1):
        chosen = bucket_of(buckets, k)
        assert chosen >= min(k, rows)
        assert not [bucket for bucket in buckets if min(k, rows) <= bucket < chosen]


@pytest.mark.parametrize(
    ("k", "rows", "expected"),
    [
        (16, 1_023, None),
        (16, 1_024, 8),
        (16, 10_000, 32),
        (16, 100_000, 64),
        (16, 1_000_000, 128),
        (16, 10**9, 128),
        (128, 10_000, 8),
        (128, 100_000, 32),
        (1000, 10_000, None),
        (1000, 100_000, 8),
        (1000, 1_000_000, 32),
        (16384, 1_000_000, None),
    ],
)
def test_block_width_follows_rows_per_result(k: int, rows: int, expected: int | None) -> None:
    """Wider with more rows per result, within what divides the padding; none where blocks save nothing."""
    assert expected == block_width(k, rows)
    assert expected is None or BLOCK % expected == 0


@pytest.mark.parametrize(
    ("rows", "max_rows", "expected"),
    [
        (1, 128, 128),
        (1_000_000, 128, 128),
        (1_000_000, 4096, 134),
        (10_000_000, 128, 13),
        (2**31 - 256, 128, 1),
    ],
)
def test_scores_of_one_call_stay_within_the_budget(rows: int, max_rows: int, expected: int) -> None:
    """As many queries as the budget holds, never more than were announced, and at least one."""
    assert expected == queries_per_call(rows, max_rows)
    assert expected == 1 or 4 * expected * rows <= SCORES_BUDGET


def test_scratch_grows_with_every_size_up_to_the_budget() -> None:
    """More rows, queries or results need more memory; queries beyond the budget need no more."""
    base = scratch_bytes(rows=100_000, dim=100, max_rows=64, max_k=100)
    assert base < scratch_bytes(rows=200_000, dim=100, max_rows=64, max_k=100)
    assert base < scratch_bytes(rows=100_000, dim=100, max_rows=128, max_k=100)
    assert base < scratch_bytes(rows=100_000, dim=100, max_rows=64, max_k=1000)
    full = scratch_bytes(rows=10_000_000, dim=100, max_rows=13, max_k=100)
    assert full == scratch_bytes(rows=10_000_000, dim=100, max_rows=4096, max_k=100)
