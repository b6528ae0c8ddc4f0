"""The last look at an engine before it answers: sampled rows must find themselves.

Catches what no check of the file can: a wrong kernel, a broken device, a matrix that was mixed up on its way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kosine.errors import LoadCode, LoadError, Stage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kosine.engines.engine import Engine
    from kosine.engines.matrix import ItemMatrix
    from kosine.loading.pace import Pace

__all__ = ("SAMPLES", "check_engine", "sample_rows")

SAMPLES = 8
_TOGETHER = 2
"""One by itself may go another way than a batch."""
_AFTER_A_CALL = 0.01
"""Seconds in which whoever waited for the device is answered."""
_TOLERANCE = 1e-3
"""Hundreds of times what float32 leaves at any dimension, a hundredth of what a wrong row scores."""
_LEAST = float(np.finfo(np.float32).tiny)
_MOST = float(np.finfo(np.float32).max)


def sample_rows(matrix: ItemMatrix) -> NDArray[np.float32]:
    """Copies of up to `SAMPLES` evenly spread rows [B, dim], first and last included.

    Rows that are no valid query, because their squared norm leaves float32, are left out.
    """
    chosen = np.unique(np.linspace(0, matrix.rows - 1, min(SAMPLES, matrix.rows)).astype(np.int64))
    rows = matrix.take(chosen)
    squares = np.square(rows, dtype=np.float64).sum(axis=1)
    valid: NDArray[np.float32] = rows[(squares >= _LEAST) & (squares < _MOST)]
    return valid


def check_engine(
    engine: Engine, samples: NDArray[np.float32], *, metric: str, pace: Pace | None = None
) -> None:
    """LoadError `self_check_failed` unless each sampled row finds a row that scores what it scores itself.

    That score is computed here, in float64. By `dot` a longer row may score more; by `cosine` none can. With
    a `pace` two are asked at a time, as one call for all holds up whoever is answered meanwhile.
    """
    if not len(samples):
        return
    numbers, scores = _searched(engine, samples, pace)
    own = np.square(samples, dtype=np.float64).sum(axis=1)
    slack = _TOLERANCE * np.maximum(own, _LEAST)
    good = np.isfinite(scores[:, 0]) & (scores[:, 0] >= own - slack)
    if metric == "cosine":
        good &= scores[:, 0] <= own + slack
    good &= (numbers[:, 0] >= 0) & (numbers[:, 0] < engine.rows)
    if not good.all():
        wrong = int(np.argmin(good))
        raise LoadError(
            LoadCode.SELF_CHECK_FAILED,
            f"{int((~good).sum())} of {len(samples)} sampled rows did not find themselves: one scored "
            f"{scores[wrong, 0]:.6g} where NumPy computes {own[wrong]:.6g}; the engine on {engine.device} "
            "is not to be trusted",
            stage=Stage.WARM_UP,
            sampled=len(samples),
            failed=int((~good).sum()),
        )


def _searched(
    engine: Engine, samples: NDArray[np.float32], pace: Pace | None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """[B, 1] each."""
    if pace is None:
        return engine.search(samples, 1)
    found = []
    for first in range(0, len(samples), _TOGETHER):
        found.append(engine.search(samples[first : first + _TOGETHER], 1))
        pace.rest(_AFTER_A_CALL)
    return np.concatenate([numbers for numbers, _ in found]), np.concatenate([scores for _, scores in found])
