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
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

__all__ = ("best_rows",)


def best_rows(scores: Any, k: int, *, rows: int, width: int | None) -> tuple[Any, Any]:
    """Numbers [B, k] int32 and scores [B, k] of the best of the first `rows` columns, best first.

    `scores` is [B, columns] float32 without NaN; `columns` is at least `rows` and a multiple of `width`, and
    `k` is at most `rows`. Without a width, or where all blocks would be chosen anyway, this is plain top-k.
    """
    columns = scores.shape[1]
    blocks = -(-rows // width) if width else 0
    shared = width is not None and rows % width != 0
    chosen = k + 1 if shared else k
    if width is None or chosen >= blocks:
        values, row_numbers = tf.math.top_k(scores[:, :rows] if rows < columns else scores, k)
        return row_numbers, values
    by_block = tf.reshape(scores, [-1, columns // width, width])
    maxima = tf.reduce_max(by_block, axis=2)[:, :blocks]
    block_numbers = tf.sort(tf.math.top_k(maxima, chosen, sorted=False).indices, axis=1)
    candidates = tf.reshape(tf.gather(by_block, block_numbers, axis=1, batch_dims=1), [-1, chosen * width])
    candidate_rows = tf.reshape(block_numbers[:, :, None] * width + tf.range(width), [-1, chosen * width])
    if shared:
        candidates = tf.where(candidate_rows < rows, candidates, float("-inf"))
    values, positions = tf.math.top_k(candidates, k)
    return tf.gather(candidate_rows, positions, axis=1, batch_dims=1), values
