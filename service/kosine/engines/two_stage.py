"""Exact top-k in two stages: the best blocks by their maximum, then the best rows inside them.

Plain top-k pushes every score through a heap; here only rows/width block maxima and k*width scores are.
The answer is the same, ties included. Let rows be ordered by (score falling, row number rising) and blocks
of consecutive rows by (maximum falling, block number rising). Then the best k rows lie in the first k blocks:

    Let row r lie in a block b that is not among the first k blocks. Each of those k blocks has a larger
    maximum than b, or an equal one and a lower number. In both cases the row holding its maximum comes
    before r. So k rows come before r, and r is not among the best k.

The zeros behind the last row can only raise the maximum of the one block they share with rows, so that it
is chosen where it should not be; choosing k + 1 blocks makes up for that one. Blocks made of zeros alone are
left out, and zeros inside a chosen block are masked. `tf.math.top_k` puts the lower position first among
equals, and sorting the chosen block numbers makes position order row order.

Every size may be a tensor, so that one traced graph serves every index and every k.

Scores in bfloat16 are looked at as the integers that their bits are, up to five times as fast. Those order
numbers as they are ordered, but negative ones the other way round. So a maximum is right unless all of its
block are negative; then it is one of these, and what is found is right down to a score of 0.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

__all__ = ("best_rows", "best_rows_by_block", "masked", "merge_best", "without", "without_by_block")


def best_rows(scores: Any, k: Any, *, rows: Any) -> tuple[Any, Any]:
    """Numbers [B, k] int32 and scores [B, k] of the best of the first `rows` columns, best first.

    `scores` is [B, columns] float32 without NaN; `k` is at most `rows`. Plain top-k.
    """
    values, row_numbers = tf.math.top_k(scores[:, :rows], k)
    return row_numbers, values


def best_rows_by_block(scores: Any, k: Any, *, rows: Any, width: Any) -> tuple[Any, Any]:
    """As `best_rows`, in two stages.

    `columns` is a multiple of `width`, and the rows fill more than `k` blocks, the last perhaps in part. Of
    bfloat16 `scores` everything from the first that is negative on may be wrong.
    """
    batch = tf.shape(scores)[0]
    by_block = tf.reshape(scores, [batch, -1, width])
    blocks = (rows + width - 1) // width
    maxima = _maxima(by_block)[:, :blocks]
    block_numbers = tf.sort(tf.math.top_k(maxima, k + 1, sorted=False).indices, axis=1)
    candidates = tf.gather(by_block, block_numbers, axis=1, batch_dims=1)
    return _best_of(candidates, block_numbers, k, rows=rows, width=width)


def masked(scores: Any, masks: Any, which: Any) -> Any:
    """A copy of `scores` [B, columns]: -inf where the mask `which[b]` of `masks` [M, columns] is false."""
    return tf.where(tf.gather(masks, which), scores, float("-inf"))


def without(scores: Any, places: Any) -> Any:
    """A copy of `scores` with -inf at `places` [M, 2] int32, each (query, column)."""
    nothing = tf.constant(float("-inf"), scores.dtype)
    return tf.tensor_scatter_nd_update(scores, places, tf.fill([tf.shape(places)[0]], nothing))


def without_by_block(scores: Any, k: Any, *, rows: Any, width: Any, places: Any) -> tuple[Any, Any]:
    """As `best_rows_by_block` of `without(scores, places)`, in float32, and no copy.

    A row that is left out changes the maximum of its block only where its score is that maximum: seldom,
    unless the best rows are left out. Only such blocks, and those that are chosen, are made anew.
    """
    batch, blocks = tf.shape(scores)[0], (rows + width - 1) // width
    flat = tf.reshape(scores, [-1, width])
    in_all = tf.shape(flat)[0] // batch
    held_by, columns = places[:, 0] * in_all + places[:, 1] // width, places[:, 1] % width
    maxima = _maxima(flat)
    left_out = tf.cast(tf.gather_nd(flat, tf.stack([held_by, columns], axis=1)), tf.float32)
    highest = left_out >= tf.gather(maxima, held_by)
    lowered, _ = tf.unique(tf.gather(held_by, _where(highest)))
    lower = _maxima(_blocks_without(flat, lowered, held_by, columns))
    maxima = tf.tensor_scatter_nd_update(maxima, lowered[:, None], lower)
    by_query = tf.reshape(maxima, [batch, -1])[:, :blocks]
    block_numbers = tf.sort(tf.math.top_k(by_query, k + 1, sorted=False).indices, axis=1)
    chosen = tf.range(batch)[:, None] * in_all + block_numbers
    candidates = _blocks_without(flat, tf.reshape(chosen, [-1]), held_by, columns)
    by_query = tf.reshape(candidates, [batch, k + 1, width])
    return _best_of(by_query, block_numbers, k, rows=rows, width=width)


def _maxima(blocks: Any) -> Any:
    """[..., n] float32 of `blocks` [..., n, width]."""
    if blocks.dtype != tf.bfloat16:
        return tf.reduce_max(blocks, axis=-1)
    bits = tf.reduce_max(tf.bitcast(blocks, tf.int16), axis=-1)
    return tf.cast(tf.bitcast(bits, tf.bfloat16), tf.float32)


def _blocks_without(flat: Any, numbers: Any, held_by: Any, columns: Any) -> Any:
    """Copies of blocks `numbers` [n], each once, of `flat`: -inf at the places (`held_by`, `columns`) [M]."""
    standing = tf.tensor_scatter_nd_update(
        tf.fill([tf.shape(flat)[0]], -1), numbers[:, None], tf.range(tf.shape(numbers)[0])
    )
    at = tf.gather(standing, held_by)
    here = _where(at >= 0)
    places = tf.gather(tf.stack([at, columns], axis=1), here)
    return without(tf.gather(flat, numbers), places)


def _where(true: Any) -> Any:
    """The numbers of what is true of [n]."""
    return tf.where(true)[:, 0]


def _best_of(candidates: Any, block_numbers: Any, k: Any, *, rows: Any, width: Any) -> tuple[Any, Any]:
    """The best `k` of the scores [B, blocks, width] of these blocks, in row order."""
    flat = [tf.shape(candidates)[0], (k + 1) * width]
    candidate_rows = tf.reshape(block_numbers[:, :, None] * width + tf.range(width), flat)
    scores = tf.cast(tf.reshape(candidates, flat), tf.float32)
    values = tf.where(candidate_rows < rows, scores, float("-inf"))
    best, positions = tf.math.top_k(values, k)
    return tf.gather(candidate_rows, positions, axis=1, batch_dims=1), best


def merge_best(numbers: Any, scores: Any, k: Any) -> tuple[Any, Any]:
    """The best `k` of answers laid side by side [B, several * k], those for lower rows to the left."""
    values, positions = tf.math.top_k(scores, k)
    return tf.gather(numbers, positions, axis=1, batch_dims=1), values
