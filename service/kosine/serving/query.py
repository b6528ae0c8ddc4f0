"""From the numbers a caller sent to a row the engine can score. Every check comes before the queue.

A batch that holds one bad row would spoil or poison its mates, so nothing unchecked is ever enqueued.
"""

from __future__ import annotations

import math
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING

import numpy as np

from kosine.errors import BadK, DimMismatch, NotFinite, ZeroVector

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = list[float] | NDArray[np.float32] | NDArray[np.float64]

__all__ = ("check_k", "to_query")

_BIGGEST_SHOWN = 2**63
_SAFE_SQUARES = (1e-30, 1e30)
"""Squared norms a float32 graph normalises without over- or underflow in any partial sum."""


def check_k(k: int, *, max_k: int) -> int:
    """`k` itself where it lies in 1..max_k. Raises BadK."""
    if 1 <= k <= max_k:
        return k
    shown: int | str = k if abs(k) < _BIGGEST_SHOWN else "an integer of more than 64 bits"
    raise BadK(f"expected k from 1 to {max_k}, got {shown}", got=shown, max_k=max_k)


def to_query(values: Vector, *, dim: int, metric: str) -> NDArray[np.float32]:
    """`values` as one float32 row [dim], finite and, for cosine, non-zero and of a harmless magnitude.

    A float32 array is taken as it is. A cosine does not depend on length, so an extreme vector is scaled by
    a power of two: no digit changes.
    Raises DimMismatch, NotFinite or ZeroVector.
    """
    if len(values) != dim:
        raise DimMismatch(
            f"expected {dim} numbers in `embedding`, got {len(values)}", expected=dim, got=len(values)
        )
    row = np.frombuffer(_packer(dim).pack(*values), np.float32) if isinstance(values, list) else values
    # vdot is the product that does not warn when it overflows.
    if _SAFE_SQUARES[0] < np.vdot(row, row) < _SAFE_SQUARES[1]:
        return row.astype(np.float32, copy=False)
    with np.errstate(over="ignore"):
        narrow = row.astype(np.float32, copy=False)
    return _extreme(narrow, metric=metric)


@lru_cache(maxsize=256)
def _packer(dim: int) -> Struct:
    """Half the time of np.array(list), and 1e39 becomes an infinity without a warning."""
    return Struct(f"{dim}f")


def _extreme(row: NDArray[np.float32], *, metric: str) -> NDArray[np.float32]:
    if not np.isfinite(row).all():
        where = np.flatnonzero(~np.isfinite(row))
        raise NotFinite(
            f"{len(where)} of {len(row)} numbers in `embedding` are not finite as float32 (largest: 3.4e38), "
            f"first at position {where[0]}",
            positions=where[:10].tolist(),
        )
    if metric == "dot":
        return row
    largest = float(np.abs(row).max())
    if largest == 0.0:
        raise ZeroVector("a vector of zeros has no direction; send at least one non-zero number as float32")
    _, exponent = math.frexp(largest)
    return np.ldexp(row.astype(np.float64), -exponent).astype(np.float32)
