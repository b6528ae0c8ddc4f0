"""Two-stage top-k equals a stable sort of all scores: same rows, same scores, same order among ties."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosine.engines.matrix import BLOCK, padded_rows
from tests.kit.device import cpu_device
from tests.kit.oracle import best_first

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTHS = (8, 16, 32, 64, 128)


def two_stage(scores: NDArray[np.float32], k: int, *, width: int | None) -> tuple[Any, Any]:
    """The best of [B, rows] scores, zero-padded as a matrix is; plain where there are too few blocks."""
    cpu_device()
    import tensorflow as tf

    from kosine.engines.two_stage import best_rows, best_rows_by_block

    rows = scores.shape[1]
    padded = np.zeros((len(scores), padded_rows(rows)), np.float32)
    padded[:, :rows] = scores
    if width is None or -(-rows // width) <= k:
        numbers, values = best_rows(tf.constant(padded), k, rows=rows)
    else:
        numbers, values = best_rows_by_block(tf.constant(padded), k, rows=rows, width=width)
    return numbers.numpy(), values.numpy()


def assert_equals_sort(scores: NDArray[np.float32], k: int, *, width: int | None) -> None:
    expected = best_first(scores, k)
    numbers, values = two_stage(scores, k, width=width)
    np.testing.assert_array_equal(expected, numbers)
    np.testing.assert_array_equal(np.take_along_axis(scores, expected, axis=1), values)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 3 * BLOCK + 5),
    width=st.sampled_from((*WIDTHS, None)),
    levels=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_heavy_ties_go_to_the_lower_row(
    rows: int, width: int | None, levels: int, seed: int, data: st.DataObject
) -> None:
    """With few distinct scores, negative, zero and positive, the answer is the stable sort's."""
    k = data.draw(st.integers(1, min(rows, 20)) | st.integers(1, rows), label="k")
    scores = np.random.default_rng(seed).integers(-levels, levels, (3, rows), endpoint=True)
    assert_equals_sort(scores.astype(np.float32), k, width=width)


@pytest.mark.parametrize("width", [*WIDTHS, None])
@pytest.mark.parametrize("rows", [1, 127, 128, 129, 1000, 1023, 1024, 1025])
def test_all_equal_scores_answer_the_first_rows(rows: int, width: int | None) -> None:
    """When every row ties, the best k are rows 0 to k-1."""
    for k in {1, min(3, rows), min(100, rows), rows}:
        assert_equals_sort(np.full((2, rows), 0.25, np.float32), k, width=width)


@pytest.mark.parametrize("width", [*WIDTHS, None])
@pytest.mark.parametrize("rows", [1, 7, 9, 121, 129, 137, 1001, 1017, 1153])
def test_zero_padding_is_never_answered(rows: int, width: int | None) -> None:
    """When all scores are negative, the zeros behind the last row are the largest numbers, and not rows."""
    scores = -1.0 - np.random.default_rng(rows).random((4, rows), dtype=np.float32)
    for k in {1, min(2, rows), min(10, rows), rows}:
        assert_equals_sort(scores, k, width=width)


@pytest.mark.parametrize("width", WIDTHS)
def test_zero_padding_displaces_no_block(width: int) -> None:
    """The best rows stay the answer though the last block, all negative, shows a maximum of zero."""
    rows = 20 * BLOCK + 1
    scores = np.full((1, rows), -0.9, np.float32)
    scores[0, 3 * width :: 2 * width][:5] = (-0.5, -0.4, -0.3, -0.2, -0.1)
    for k in range(1, 8):
        assert_equals_sort(scores, k, width=width)


@pytest.mark.parametrize("width", WIDTHS)
def test_ties_at_block_borders_and_far_apart_keep_row_order(width: int) -> None:
    """Equal best scores in the last column of one block, the first of the next, and the last row of all."""
    rows = 16 * BLOCK + 3
    scores = np.zeros((1, rows), np.float32)
    scores[0, [width - 1, width, 5 * width, 9 * width - 1, rows - 1]] = 1.0
    scores[0, [0, 2 * width, rows - 2]] = 0.5
    for k in range(1, 12):
        assert_equals_sort(scores, k, width=width)


@pytest.mark.parametrize("width", WIDTHS)
def test_one_block_may_hold_the_whole_answer(width: int) -> None:
    """All of the best k side by side in one block are found, best first."""
    rows = 12 * BLOCK
    scores = np.random.default_rng(width).random((1, rows), dtype=np.float32)
    scores[0, 4 * width : 4 * width + 8] = 2.0 + np.arange(8, dtype=np.float32)
    assert_equals_sort(scores, 8, width=width)


@pytest.mark.parametrize("width", [*WIDTHS, None])
def test_infinite_scores_are_ordered_like_any_other(width: int | None) -> None:
    """A dot product may overflow: +inf comes first, and a row at -inf still comes before padding."""
    rows = 10 * BLOCK + 77
    scores = np.full((1, rows), -np.inf, np.float32)
    scores[0, [3, 700, rows - 1]] = (np.inf, 1.0, np.inf)
    for k in (1, 3, 5, rows):
        assert_equals_sort(scores, k, width=width)
