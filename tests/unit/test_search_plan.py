"""The sizes of a search, as tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosine.engines.matrix import BLOCK, tiling
from kosine.engines.search_plan import (
    SCORES_BUDGET,
    block_width,
    queries_per_call,
    scratch_bytes,
    warm_up_calls,
)


@pytest.mark.parametrize(
    ("k", "rows", "expected"),
    [
        (16, 511, None),
        (16, 512, 8),
        (16, 10_000, 32),
        (16, 100_000, 64),
        (16, 1_000_000, 128),
        (16, 10**9, 128),
        (128, 10_000, 8),
        (128, 100_000, 32),
        (1000, 10_000, None),
        (1000, 100_000, 8),
        (1000, 1_000_000, 32),
        (16384, 500_000, None),
        (16384, 1_000_000, 8),
    ],
)
def test_block_width_follows_rows_per_result(k: int, rows: int, expected: int | None) -> None:
    """Wider with more rows per result, within what divides the padding; none where blocks save nothing."""
    assert expected == block_width(k, rows)
    assert expected is None or BLOCK % expected == 0


@given(st.integers(1, 16_384), st.integers(1, 2**31 - 1))
def test_there_are_always_more_blocks_than_are_chosen(k: int, rows: int) -> None:
    """Where blocks are used at all, the rows fill more than k of them, so that k + 1 can be chosen."""
    width = block_width(k, rows)
    assert width is None or -(-rows // width) > k


@pytest.mark.parametrize(
    ("rows", "max_rows", "expected"),
    [
        (1, 128, 128),
        (1_000, 4096, 4096),
        (100_000, 256, 256),
        (1_000_000, 128, 128),
        (1_000_000, 4096, 536),
        (2**31 - 256, 4096, 512),
    ],
)
def test_scores_of_one_call_stay_within_the_budget(rows: int, max_rows: int, expected: int) -> None:
    """As many queries as the budget holds for one tile, never more than were announced."""
    assert expected == queries_per_call(rows, max_rows)
    assert 4 * expected * tiling(rows)[1] <= SCORES_BUDGET


def test_scratch_grows_with_every_size_up_to_the_budget() -> None:
    """More rows, queries or results need more memory; queries beyond the budget need no more."""
    base = scratch_bytes(rows=50_000, dim=100, max_rows=64, max_k=100)
    assert base < scratch_bytes(rows=100_000, dim=100, max_rows=64, max_k=100)
    assert base < scratch_bytes(rows=50_000, dim=100, max_rows=128, max_k=100)
    assert base < scratch_bytes(rows=50_000, dim=100, max_rows=64, max_k=1000)
    full = scratch_bytes(rows=100_000, dim=100, max_rows=335, max_k=100)
    assert full == scratch_bytes(rows=100_000, dim=100, max_rows=4096, max_k=100)


def test_scratch_does_not_grow_with_rows_past_one_tile() -> None:
    """A million rows need what the largest single tile needs; a share of it is the answers of each tile."""
    one = scratch_bytes(rows=2**17, dim=128, max_rows=128, max_k=1000)
    assert scratch_bytes(rows=2**20, dim=128, max_rows=128, max_k=1000) < one


@given(st.integers(1, 2**31 - 1))
def test_tiles_hold_every_row_once(rows: int) -> None:
    """They are as even as blocks allow, none is empty, and the padding is less than one tile."""
    tiles, columns = tiling(rows)
    assert (tiles - 1) * columns < rows <= tiles * columns
    assert columns <= 2**17
    assert columns % BLOCK == 0
    assert tiles == 1 or tiles * columns <= rows + columns


@pytest.mark.parametrize(
    ("sizes", "max_k", "expected"),
    [
        ((1, 8, 128), 1000, [(128, 1000), (128, 10), (128, 10), (8, 10), (1, 10)]),
        ((1,), 1000, [(1, 1000), (1, 10), (1, 10)]),
        ((1, 4), 5, [(4, 5), (4, 5), (1, 5)]),
        ((1, 4), 10, [(4, 10), (4, 10), (1, 10)]),
    ],
)
def test_warm_up_begins_with_the_calls_that_take_most_memory(
    sizes: tuple[int, ...], max_k: int, expected: list[tuple[int, int]]
) -> None:
    """The largest batch with filters of both kinds and the largest k; what is usual with every size."""
    made = warm_up_calls(sizes, max_k)
    assert expected == [(queries, k) for queries, k, filtering in made if filtering != "masks"]
    masked = [(queries, k) for queries, k, filtering in made if filtering == "places"]
    assert masked == [(queries, k) for queries, k, filtering in made if filtering == "masks"]
    assert len(made) == len(set(made))
