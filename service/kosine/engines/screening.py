"""Whether a batch is screened, and how many rows pass: policy, learned from the answers. No TensorFlow.

Screened means: scores of a copy in bfloat16, which some CPUs multiply up to several times as fast, choose a
few rows more than are wanted, and those are scored by float32 (`kosine.engines.screened_scores`). Each answer
tells whether what was chosen is proven to hold the best rows. Who has no such proof is searched by float32,
so more rows pass where that happens often, and nothing is screened where it goes on: near ties by the
hundred, as copies of an item are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kosine.engines.second_calls import SecondCalls

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kosine.engines.cpus import Bfloat16

__all__ = ("Screening", "is_worth_a_copy", "most_looked_up", "most_passing")

_LEAST_DIM: Mapping[Bfloat16, int] = {"amx": 384, "avx512": 768}
_LEAST_ROWS = 2**14
_LEAST_NUMBERS = 10_000_000
"""With less the product is so small a part of a call that screening costs what it saves."""

_MOST_LOOKED_UP = 2**23
"""Numbers of the rows that pass, of all queries of a call: 32 MiB."""
_MOST_ROWS_LOOKED_UP = 2**14
"""The rows themselves; more queries than have so many gain nothing from being together."""
_LEAST_AT_ONCE = 16
"""Queries of a call: a product for fewer is not worth it."""
_MOST_RESULTS = 128
_MOST_RESULTS_TOGETHER = 6400
"""Of one query, and of all of a call: past it looking rows up costs more than the product saves."""
_LEAST_ROWS_EACH = 256
"""Of a tile, for each that passes: a number that is looked up costs as much as a hundred of the product."""
_SPARE = 12
_MOST_TIMES = 8
"""Times the spare rows, before screening is given up."""
_OFTEN = 0.03
"""Of what calls cost, second ones: more rows pass."""
_TOO_MUCH = 0.3
"""Of what calls cost, second ones: as much as is saved."""


def is_worth_a_copy(bfloat16: Bfloat16, *, rows: int, dim: int) -> bool:
    """Whether a matrix should be screened by a CPU that has this.

    >>> [is_worth_a_copy("amx", rows=20_000, dim=dim) for dim in (768, 384)]
    [True, False]
    >>> [is_worth_a_copy(bfloat16, rows=10**6, dim=512) for bfloat16 in ("amx", "avx512", "off")]
    [True, False, False]
    """
    least = _LEAST_DIM.get(bfloat16)
    return least is not None and dim >= least and rows >= _LEAST_ROWS and rows * dim >= _LEAST_NUMBERS


class Screening:
    """Of one engine, used by its device thread."""

    def __init__(self) -> None:
        self._times = 1
        self._second = SecondCalls(too_much=_TOO_MUCH)

    def passing(self, k: int) -> int:
        """How many rows pass for `k` results."""
        return _passing(k, self._times)

    def at_once(self, *, k: int, dim: int) -> int:
        """How many queries a call may have, so that the rows that pass take little memory."""
        return _looked_up(dim) // self.passing(k)

    def worth_trying(self, *, k: int, rows: int, dim: int, queries: int) -> bool:
        """For `queries` that want `k` of the `rows` of a tile."""
        if k > _MOST_RESULTS or queries * k > _MOST_RESULTS_TOGETHER:
            return False
        if rows < _LEAST_ROWS_EACH * self.passing(k):
            return False
        if self.at_once(k=k, dim=dim) < min(queries, _LEAST_AT_ONCE):
            return False
        return self._second.worth_risking()

    def note(self, *, unproven: int, queries: int) -> None:
        """Of so many queries, so many had to be searched again."""
        self._second.note(again=unproven, queries=queries)
        if self._second.cost > _OFTEN and self._times < _MOST_TIMES:
            self._times *= 2
            self._second.forget()


def most_passing(k: int) -> int:
    """How many rows pass at most for up to `k` results.

    >>> most_passing(10), most_passing(1000)
    (106, 640)
    """
    return _passing(min(k, _MOST_RESULTS), _MOST_TIMES)


def most_looked_up(*, queries: int, k: int, dim: int) -> int:
    """Numbers of the rows that pass at most for up to `queries` that want up to `k` results.

    >>> most_looked_up(queries=64, k=10, dim=400), most_looked_up(queries=128, k=1000, dim=768)
    (2713600, 8388096)
    """
    return dim * min(_looked_up(dim), queries * most_passing(k))


def _looked_up(dim: int) -> int:
    """How many rows may pass in a call."""
    return min(_MOST_ROWS_LOOKED_UP, _MOST_LOOKED_UP // dim)


def _passing(k: int, times: int) -> int:
    return k + times * max(_SPARE, k // 2)
