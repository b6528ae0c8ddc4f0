"""The TensorFlow function that generic model servers are given: two-stage top-k for one matrix and k.

A user of such a server would write this, and be told by kosine's docs how to write it well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ("exact_top_k",)

_BLOCK = 128


def exact_top_k(
    vectors: NDArray[np.floating], k: int
) -> Callable[[NDArray[np.float32]], tuple[NDArray[np.int32], NDArray[np.float32]]]:
    """`vectors` [N, d]; the function takes queries [B, d] and returns row numbers and scores [B, k]."""
    import tensorflow as tf

    rows, dim = vectors.shape
    blocks = -(-rows // _BLOCK)
    padded = np.zeros((dim, blocks * _BLOCK), dtype=np.float32)
    padded[:, :rows] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T
    matrix = tf.constant(padded)

    def search(queries: Any) -> Any:
        unit = queries * tf.math.rsqrt(tf.reduce_sum(queries * queries, 1, keepdims=True))
        by_block = tf.reshape(tf.matmul(unit, matrix), [-1, blocks, _BLOCK])
        _, best = tf.math.top_k(tf.reduce_max(by_block, 2), min(k + 1, blocks), sorted=False)
        columns = tf.reshape(
            best[:, :, None] * _BLOCK + tf.range(_BLOCK)[None, None, :], [tf.shape(best)[0], -1]
        )
        scores = tf.reshape(tf.gather(by_block, best, axis=1, batch_dims=1), tf.shape(columns))
        scores = tf.where(columns < rows, scores, -np.inf)
        values, places = tf.math.top_k(scores, k)
        return tf.gather(columns, places, axis=1, batch_dims=1), values

    signature = tf.TensorSpec([None, dim], tf.float32)
    concrete = tf.function(search).get_concrete_function(signature)

    def find(queries: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        found, values = concrete(tf.constant(queries))
        return found.numpy(), values.numpy()

    for size in (1, 2, 4, 8, 16, 32, 64, 128):
        find(np.ones((size, dim), dtype=np.float32))
    return find
