"""The best rows by a product of rounded numbers, and the proof that they are the best. TensorFlow.

Items and queries are rounded to bfloat16, which some CPUs multiply faster; oneDNN sums in float32 and rounds
the sum. With x' and q' for what an item x and a unit query q are rounded to,

    |x.q - x'.q'| = |(x - x').q + x'.(q - q')| <= |x - x'| + |x'| |q - q'|

by Cauchy and Schwarz. The first term is known of the worst item of a tile, the second of each query. What
the rounded score of a row that does not pass was rounded from is at most half a step more than that of the
worst that passes, since rounding keeps the order. So if the k-th best of the rows that pass, scored by
float32, is better by more than all that than the rounded score of the worst that passes, then it is better
than every row that does not pass.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ("products_are_near", "round_items", "screened")

_BFLOAT16: np.dtype[Any] = np.dtype(tf.bfloat16.as_numpy_dtype)
"""NumPy has none of its own; TensorFlow brings one."""

_AT_ONCE = 2**16
"""Numbers of items that stay in the cache of a core while they are rounded."""
_UNIT_ROUNDOFF = 2.0**-24
_SLACK = 1.01
"""For |x'|, which is 1 within 2^-8, and for rounding in the bound itself."""


def screened(
    best: Callable[[Any, Any], tuple[Any, Any]],
    units: Any,
    items: Any,
    rounded: Any,
    sizes: Any,
    rounding: Any,
) -> tuple[Any, Any, Any]:
    """Numbers [B, k] and scores [B, k] of the best items [columns, dim] for `units` [B, dim]; proven? [B].

    `rounded` are the items as bfloat16, and `rounding` what `round_items` said of them; `sizes` are the first
    row, rows, how many pass, columns per block and k; `best` chooses, and scores -inf what is left out. Ties
    go to the lower row.
    """
    first, rows, passing, width, k = tf.unstack(sizes, 5)
    numbers, near = best(_rounded_product(units, rounded), tf.stack([0, rows, passing, width]))
    ascending = tf.math.top_k(-numbers, passing).indices
    numbers = tf.gather(numbers, ascending, axis=1, batch_dims=1)
    # Not a product of matrices, whose sums depend on the batch.
    exact = tf.reduce_sum(tf.gather(items, numbers) * units[:, tf.newaxis, :], axis=2)
    scores, places = tf.math.top_k(exact, k)
    worst = near[:, -1]
    # Negative ones prove nothing, and may be none of the best: rows that are left out, too few that are not.
    proven = (worst >= 0) & (scores[:, -1] > worst + _half_step(worst) + _off_by(units, rounding))
    return first + tf.gather(numbers, places, axis=1, batch_dims=1), scores, proven


def round_items(items: NDArray[np.float32], rounded: NDArray[np.uint16]) -> float:
    """Write unit items [n, dim] as bfloat16 into `rounded` [n, dim]; the largest |x - x'|."""
    written = rounded.view(_BFLOAT16)
    step = max(1, _AT_ONCE // items.shape[1])
    largest = 0.0
    for first in range(0, len(items), step):
        piece = items[first : first + step]
        written[first : first + step] = piece
        off = piece - written[first : first + step].astype(np.float32)
        largest = max(largest, float(np.einsum("ij,ij->i", off, off).max()))
    return math.sqrt(largest)


def products_are_near() -> bool:
    """Whether products of bfloat16 are within what this module assumes here."""
    random = np.random.default_rng(0)
    units, items = (_unit_vectors(random, rows) for rows in (16, 512))
    rounded = np.empty(items.shape, np.uint16)
    bound = _off_by(tf.constant(units), round_items(items, rounded)).numpy()
    scores = tf.cast(_rounded_product(tf.constant(units), tf.bitcast(rounded, tf.bfloat16)), tf.float32)
    exact = units.astype(np.float64) @ items.T.astype(np.float64)
    off = np.abs(scores.numpy() - exact)
    return bool((off <= bound[:, np.newaxis] + _half_step(scores).numpy()).all())


def _unit_vectors(random: np.random.Generator, rows: int) -> NDArray[np.float32]:
    vectors = random.standard_normal((rows, 256), dtype=np.float32)
    units: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units


def _rounded_product(units: Any, rounded: Any) -> Any:
    """[B, columns] bfloat16."""
    return tf.matmul(tf.cast(units, tf.bfloat16), rounded, transpose_b=True)


def _half_step(scores: Any) -> Any:
    """Half the distance to the bfloat16 that is next, away from zero, of scores that were rounded to it."""
    bits = tf.bitcast(tf.cast(scores, tf.bfloat16), tf.int16)
    following = tf.cast(tf.bitcast(bits + 1, tf.bfloat16), tf.float32)
    return tf.abs(following - scores) / 2


def _off_by(units: Any, rounding: Any) -> Any:
    """[B]: how far the sum of a rounded score may be from the score by float32, sums of both included."""
    rounded = tf.cast(tf.cast(units, tf.bfloat16), tf.float32)
    own = tf.sqrt(tf.reduce_sum(tf.math.squared_difference(units, rounded), axis=1))
    dim = tf.cast(tf.shape(units)[1], tf.float32)
    # Each of the two sums is off by dim roundings at most (Higham, as in `kosine.engines.exact_scores`).
    return _SLACK * (rounding + own) + 4 * (dim + 4) * _UNIT_ROUNDOFF
