"""The sizes of a search, decided once per version: pure arithmetic, no TensorFlow.

Which k a graph is traced for, how wide the blocks of the two-stage top-k are, how many queries one call
may score at once, and what memory that takes. The constants come from the tables in docs/performance.md.
"""

from __future__ import annotations

import math

from kosine.engines.matrix import BLOCK, padded_rows

__all__ = ("block_width", "bucket_of", "k_buckets", "queries_per_call", "scratch_bytes")

BUCKETS = (16, 128, 512, 2048, 8192)
"""Below the last one. The usual 10 and 100 cost within 10 % of a graph of their own, and no k twice that."""

NARROWEST_BLOCK = 8
"""Below this the block maxima cost as much as the top-k they save."""

ROWS_PER_RESULT = 64
"""With fewer rows per result than this, plain top-k is as fast or faster."""

SCORES_BUDGET = 512 * 2**20
"""Bytes of scores in one call: 128 queries over a million rows go unsplit, and B*N stays 2^27, far below
the 2^31 that TensorFlow's GPU kernels can index."""

GRAPHS_BYTES = 16 * 2**20
"""The graphs themselves and the smallest regions of the allocator."""


def k_buckets(max_k: int, rows: int) -> tuple[int, ...]:
    """The k to trace graphs for, ascending; the last one answers every k up to `max_k`.

    >>> k_buckets(1000, 100_000), k_buckets(1000, 50), k_buckets(5, 100_000)
    ((16, 128, 512, 1000), (16, 50), (5,))
    """
    top = min(max_k, rows)
    return (*(bucket for bucket in BUCKETS if bucket < top), top)


def bucket_of(buckets: tuple[int, ...], k: int) -> int:
    """The smallest bucket that holds `k`, or the last where k is beyond the rows.

    >>> bucket_of((16, 50), 16), bucket_of((16, 50), 17), bucket_of((16, 50), 51)
    (16, 50, 50)
    """
    return next((bucket for bucket in buckets if bucket >= k), buckets[-1])


def block_width(k: int, rows: int) -> int | None:
    """Columns per block of the two-stage top-k, a power of two that divides BLOCK; None: plain top-k.

    Stage one looks at rows/width maxima, stage two at k*width scores, so the sum is least near sqrt(rows/k).

    >>> [block_width(k, 100_000) for k in (16, 128, 1000, 16384)]
    [64, 32, 8, None]
    """
    if rows < ROWS_PER_RESULT * k:
        return None
    nearest: int = 1 << round(math.log2(rows / k) / 2)
    return max(NARROWEST_BLOCK, min(BLOCK, nearest))


def queries_per_call(rows: int, max_rows: int) -> int:
    """How many queries of a batch are scored at once, so that their scores stay within SCORES_BUDGET.

    >>> queries_per_call(1_000_000, 128), queries_per_call(10_000_000, 128), queries_per_call(2**30, 128)
    (128, 13, 1)
    """
    return max(1, min(max_rows, SCORES_BUDGET // (4 * padded_rows(rows))))


def scratch_bytes(*, rows: int, dim: int, max_rows: int, max_k: int) -> int:
    """Upper bound of what calls make the process hold beside the matrix.

    Twice what one call uses: TensorFlow's pooling allocator takes a second region of that size as soon as
    something small sits in the first, and keeps both.
    """
    scores = 4 * padded_rows(rows)
    selection = max(_selection_bytes(k, rows) for k in k_buckets(max_k, rows))
    return 2 * queries_per_call(rows, max_rows) * (scores + selection + 3 * 4 * dim) + GRAPHS_BYTES


def _selection_bytes(k: int, rows: int) -> int:
    """Of one query: everything between its scores and its answer."""
    width = block_width(k, rows)
    if width is None:
        return 4 * rows + 8 * k
    blocks = padded_rows(rows) // width
    gathered = (k + 1) * width
    maxima = 2 * 4 * blocks
    # scores, row numbers, their mask, masked scores
    return maxima + gathered * (4 + 4 + 1 + 4) + 4 * 4 * (k + 1)
