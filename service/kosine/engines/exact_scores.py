"""Scores that are the same to the last bit whatever else is scored beside them. NumPy only.

A product of matrices sums in an order that depends on its shape, so that the score of one row for one query
differs in its last bits from call to call. Where answers of several calls must fit together, products are
made in float64, rounded to multiples of one power of two, and added as whole numbers: those add up to the
same in any order. The sum is rounded once to float32. So a score depends on its query and its row alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ("AT_ONCE", "SAFE_SUM", "ExactScorer")

SAFE_SUM = float(np.finfo(np.float32).max) / 2
"""A dot product whose terms add up to less, signs aside, cannot overflow in any order of summing."""

_UNIT_ROUNDOFF = 2.0**-24
_SMALLEST = float(np.finfo(np.float32).tiny)
_SUM_BITS = 61
"""Of a sum of whole numbers, sign aside: two less than int64 holds."""

AT_ONCE = 2**18
"""Products in memory, 24 bytes each with what they are made of."""


class ExactScorer:
    """Scores rows for one query [dim]; `take` looks rows up, [n] to float32 [n, dim].

    `limits` [dim] are the largest magnitudes in each dimension where scores are dot products; None is cosine,
    of rows of length 1 within 1e-6.
    """

    def __init__(
        self,
        query: NDArray[np.float32],
        *,
        take: Callable[[NDArray[np.int32]], NDArray[np.float32]],
        limits: NDArray[np.float32] | None,
    ) -> None:
        self._take = take
        asked = query.astype(np.float64)
        if limits is None:
            # Rounded once, so that it is the same on every machine.
            asked /= math.sqrt(math.fsum((asked * asked).tolist()))
            most = 1.0
        else:
            most = math.fsum((np.abs(asked) * limits).tolist())
        self.unit = asked.astype(np.float32)
        """[dim] What is to be multiplied with rows."""
        self.overflows = most >= SAFE_SUM
        """Whether a score may not fit a float32; then none is computed."""
        self.margin = 1.1 * (query.size + 4) * (_UNIT_ROUNDOFF * most + 2 * _SMALLEST)
        """How far any float32 product of `unit` and a row may be from the score of that row.

        The sum of dim products is off by dim roundings of the sum of their magnitudes, whatever the order
        (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1); `unit` and the score are
        rounded, too.
        """
        self._exponent = _SUM_BITS - math.frexp(most)[1]
        self._scaled = np.ldexp(asked, self._exponent)

    def of(self, rows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Scores [n] of the rows with these numbers; NaN where one overflows."""
        if self.overflows:
            return np.full(len(rows), np.nan, np.float32)
        scores = np.empty(len(rows), np.float32)
        step = max(1, AT_ONCE // len(self._scaled))
        for first in range(0, len(rows), step):
            products = self._take(rows[first : first + step]) * self._scaled
            sums = np.rint(products, out=products).astype(np.int64).sum(axis=1)
            scores[first : first + step] = np.ldexp(sums.astype(np.float64), -self._exponent)
        return scores
