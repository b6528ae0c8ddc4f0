"""The best rows by a product of rounded numbers, and the proof that they are the best. TensorFlow.

oneDNN may round the numbers of a batched product to bfloat16, where the CPU multiplies those faster (Intel
AMX); the sums are float32. With x' and q' for what an item x and a unit query q are rounded to,

    |x.q - x'.q'| = |(x - x').q + x'.(q - q')| <= |x - x'| + |x'| |q - q'|

by Cauchy and Schwarz. The first term is known of the worst item of a tile, the second of each query. So if
the k-th best of the rows that pass, scored by float32, is better by more than that than the rounded score of
the worst that passes, then it is better than every row that does not pass.

Rounding is to nearest, so where a CPU or a version of oneDNN does not round at all, all of this holds, too,
and `rounds_to_bfloat16` says that nothing is gained.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ("rounding_of", "rounds_to_bfloat16", "screened")

_SPLITTER = np.float32(2**16 + 1)
_AT_ONCE = 2**16
"""Numbers of items that stay in the cache of a core while they are rounded."""
_UNIT_ROUNDOFF = 2.0**-24
_SLACK = 1.01
"""For |x'|, which is 1 within 2^-8, and for rounding in the bound itself."""


def screened(
    best: Callable[[Any, Any], tuple[Any, Any]], units: Any, items: Any, sizes: Any, rounding: Any
) -> tuple[Any, Any, Any]:
    """Numbers [B, k] and scores [B, k] of the best items [columns, dim] for `units` [B, dim]; proven? [B].

    `sizes` are the first row, rows, how many pass, columns per block and k; `best` chooses, and scores -inf
    what is left out; `rounding` is `rounding_of` the items. Ties go to the lower row.
    """
    first, rows, passing, width, k = tf.unstack(sizes, 5)
    numbers, near = best(_rounded_product(units, items), tf.stack([0, rows, passing, width]))
    ascending = tf.math.top_k(-numbers, passing).indices
    numbers, found = (tf.gather(each, ascending, axis=1, batch_dims=1) for each in (numbers, near))
    # Not a product of matrices, which might be rounded, and whose sums depend on the batch.
    exact = tf.reduce_sum(tf.gather(items, numbers) * units[:, tf.newaxis, :], axis=2)
    scores, places = tf.math.top_k(tf.where(found == float("-inf"), found, exact), k)
    worst = near[:, -1]
    proven = (worst == float("-inf")) | (scores[:, -1] > worst + _off_by(units, rounding))
    return first + tf.gather(numbers, places, axis=1, batch_dims=1), scores, proven


def rounding_of(items: NDArray[np.float32]) -> float:
    """The largest |x - x'| of unit items [n, dim]."""
    step = max(1, _AT_ONCE // items.shape[1])
    pieces = (items[first : first + step] for first in range(0, len(items), step))
    return math.sqrt(max(_largest_square(piece) for piece in pieces))


def _largest_square(items: NDArray[np.float32]) -> float:
    # To 8 bits (T. J. Dekker, A floating-point technique for extending the available precision, 1971).
    large = items * _SPLITTER
    off = large - items
    np.subtract(large, off, out=off)
    np.subtract(items, off, out=off)
    return float(np.einsum("ij,ij->i", off, off).max())


def rounds_to_bfloat16() -> bool:
    """Whether products are rounded here, within what this module assumes, and those of matrices are not."""
    random = np.random.default_rng(0)
    units, items = (_unit_vectors(random, rows) for rows in (16, 512))
    exact = units.astype(np.float64) @ items.T.astype(np.float64)
    off = np.abs(_rounded_product(tf.constant(units), tf.constant(items)).numpy() - exact)
    bound = _off_by(tf.constant(units), rounding_of(items)).numpy()
    plain = np.abs(tf.matmul(units, items, transpose_b=True).numpy() - exact)
    least = float(bound.max()) / 100
    return bool(plain.max() < least < off.max() and (off <= bound[:, np.newaxis]).all())


def _unit_vectors(random: np.random.Generator, rows: int) -> NDArray[np.float32]:
    vectors = random.standard_normal((rows, 256), dtype=np.float32)
    units: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units


def _rounded_product(units: Any, items: Any) -> Any:
    """[B, columns]. With TF_SET_ONEDNN_FPMATH_MODE oneDNN may round in this operation, and not in MatMul."""
    product = tf.raw_ops.BatchMatMulV2(x=units[tf.newaxis], y=items[tf.newaxis], adj_y=True)
    return tf.squeeze(product, 0)


def _off_by(units: Any, rounding: Any) -> Any:
    """[B]: how far a rounded score may be from the score by float32, sums of both included."""
    rounded = tf.cast(tf.cast(units, tf.bfloat16), tf.float32)
    own = tf.sqrt(tf.reduce_sum(tf.math.squared_difference(units, rounded), axis=1))
    dim = tf.cast(tf.shape(units)[1], tf.float32)
    # Each of the two sums is off by dim roundings at most (Higham, as in `kosine.engines.exact_scores`).
    return _SLACK * (rounding + own) + 4 * (dim + 4) * _UNIT_ROUNDOFF
