"""The sizes of a search, decided once per version: pure arithmetic, no TensorFlow.

How wide the blocks of the two-stage top-k are, how many queries one call may score at once, what memory that
takes, and which calls warm an engine up. The constants come from the tables in docs/performance.md.
"""

from __future__ import annotations

import math
from itertools import product

from kosine.engines.exact_scores import AT_ONCE
from kosine.engines.filters import MOST_REMADE, Filtering
from kosine.engines.matrix import BLOCK, padded_rows, tiling
from kosine.engines.pages import MORE_KEPT, MOST_AT_ONCE
from kosine.engines.screening import most_looked_up, most_passing

__all__ = (
    "MOST_UNMERGED",
    "block_width",
    "masked_calls",
    "queries_per_call",
    "rounded_bytes",
    "scratch_bytes",
    "warm_up_calls",
)

_FILTERED: tuple[Filtering, ...] = ("places", "masks")

USUAL_K = 10
"""What most callers ask for: warmed up at every batch size."""

NARROWEST_BLOCK = 8
"""Below this the block maxima cost as much as the top-k they save."""

ROWS_PER_RESULT = 32
"""With fewer rows per result than this, plain top-k is as fast; down to it, it takes more memory."""

SCORES_BUDGET = 128 * 2**20
"""Bytes of scores in one call: 256 queries over a full tile go unsplit, and B*N stays 2^25, far below what
TensorFlow's GPU kernels can index, 2^31."""

MOST_UNMERGED = 2**18
"""Results, of all queries together, that are kept of tiles before the best of them are chosen."""

GRAPHS_BYTES = 16 * 2**20
"""The graphs themselves and the smallest regions of the allocator."""


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
    """How many queries of a batch are scored at once, so that those of a tile stay within SCORES_BUDGET.

    >>> queries_per_call(1_000_000, 128), queries_per_call(1_000_000, 4096), queries_per_call(1_000, 4096)
    (128, 536, 4096)
    """
    _, columns = tiling(rows)
    return max(1, min(max_rows, SCORES_BUDGET // (4 * columns)))


def masked_calls(queries_per_call: int) -> int:
    """How many queries with masks are scored at once: half, since each needs a copy of its scores.

    >>> masked_calls(128), masked_calls(1)
    (64, 1)
    """
    return max(1, queries_per_call // 2)


def rounded_bytes(*, rows: int, dim: int) -> int:
    """Of the copy that a matrix is screened by, in bfloat16.

    >>> rounded_bytes(rows=100_000, dim=768)
    153747456
    """
    tiles, columns = tiling(rows)
    return 2 * tiles * columns * dim


def scratch_bytes(*, rows: int, dim: int, max_rows: int, max_k: int, screened: bool = False) -> int:
    """Upper bound of what calls make the process hold beside the matrix, which may be `screened`.

    Twice what one call uses: TensorFlow's pooling allocator takes a second region of that size as soon as
    something small sits in the first, and keeps both.
    """
    tiles, columns = tiling(rows)
    largest = min(rows, columns)
    most = max(max_k, most_passing(max_k)) if screened else max_k
    selection = _most_selection_bytes(min(most, largest), largest)
    rest = selection + 3 * 4 * dim
    if tiles > 1:
        # Numbers and scores of the best so far and of a tile, and once more side by side.
        rest += 2 * 8 * 2 * min(max_k, largest)
    together = queries_per_call(rows, max_rows)
    # Blocks made anew are looked up and changed. A mask is kept, sent, looked up, and all copied.
    remade = 2 * 4 * min(columns, MOST_REMADE * BLOCK)
    plain = together * (4 * columns + remade + rest)
    masked = masked_calls(together) * ((4 + 4 + 3) * columns + remade + rest)
    unmerged = 2 * 8 * MOST_UNMERGED if tiles > 1 else 0
    # Rows that pass, and their products with the queries.
    passing = 2 * 4 * most_looked_up(queries=together, k=max_k, dim=dim) if screened else 0
    return 2 * (max(plain, masked) + unmerged + passing) + _pages_bytes(rows, dim, max_k) + GRAPHS_BYTES


def _pages_bytes(rows: int, dim: int, max_k: int) -> int:
    """Of pages: NumPy's, and so beside the pool."""
    columns = tiling(rows)[1]
    # Scores of a tile for several queries; of one of them a mask, places, rows, scores and copies of these.
    products, chosen = 4 * columns * MOST_AT_ONCE, 48 * columns
    kept = 2 * 8 * min(rows, max_k + MORE_KEPT) * MOST_AT_ONCE
    return products + chosen + kept + 24 * max(AT_ONCE, dim)


def warm_up_calls(batch_sizes: tuple[int, ...], max_k: int) -> list[tuple[int, int, Filtering]]:
    """(queries, k, filtering) of the calls to make before anybody asks, those that take most memory first.

    >>> warm_up_calls((1, 128), 1000)[:2]
    [(128, 1000, 'places'), (128, 1000, 'masks')]
    >>> warm_up_calls((1, 128), 1000)[2:]
    [(128, 10, 'places'), (128, 10, 'masks'), (128, 10, 'none'), (1, 10, 'none')]
    """
    sizes = sorted(batch_sizes, reverse=True)
    # What leaves rows out needs all that a plain call does.
    filtered = product((max_k, min(USUAL_K, max_k)), _FILTERED)
    calls: list[tuple[int, int, Filtering]] = [(sizes[0], k, filtering) for k, filtering in filtered]
    calls += [(size, min(USUAL_K, max_k), "none") for size in sizes]
    return list(dict.fromkeys(calls))


def _most_selection_bytes(max_k: int, rows: int) -> int:
    """Of one query and any k up to `max_k`: the largest k needs most, or the last before plain top-k."""
    last_by_block = min(max_k, rows // ROWS_PER_RESULT)
    return max(_selection_bytes(k, rows) for k in {1, max(1, last_by_block), max_k})


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
