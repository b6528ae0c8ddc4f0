"""Whether the norms of a file contradict the layout it is said to have.

Any array has two readings: its items along one axis, or along the other. Where a job wrote unit vectors, only
the right reading shows unit norms, so a wrong layout, which would be served as silent garbage, is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from kosine.errors import LoadCode, LoadError, Stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kosine.loading.layout import MatrixPlan

__all__ = ("NormRange", "Verdict", "judge", "refusal", "unit_tolerance")

_TRUST = "check_layout: false takes the layout as declared"
_MISMATCHES = {
    "rows": "as rows the {rows} items have norms {declared}, as columns all have norm 1: the file holds "
    f"(d, N); set layout: columns, or write x.T; {_TRUST}, for columns of unit norm that are no items",
    "columns": "as columns the {rows} items have norms {declared}, as rows all have norm 1: the file holds "
    f"(N, d); set layout: rows, or write x.T; {_TRUST}, for rows of unit norm that are no items",
    "transposed": "read dim-major the {rows} items have norms {declared}, read item after item they have "
    "norm 1: the file was flattened without transposing; write np.save(path, rows) and set layout: rows, or "
    f"write np.transpose(rows).flatten(); {_TRUST}",
}
_UNPROVEN = (
    "expected unit vectors, which alone tell how a flat file is laid out, got norms {declared} read "
    "dim-major and {other} item after item; check dim ({dim}), write a 2-D array with layout: rows, or "
    f"normalise the rows; {_TRUST}"
)


@dataclass(frozen=True, slots=True)
class NormRange:
    """Least and greatest norm of the vectors of one reading."""

    low: float = math.inf
    high: float = 0.0

    @classmethod
    def of(cls, norms: NDArray[np.float64]) -> NormRange:
        """The range of `norms`; of none, one that any other range replaces."""
        return cls(float(norms.min()), float(norms.max())) if norms.size else cls()

    def __or__(self, other: NormRange) -> NormRange:
        return NormRange(min(self.low, other.low), max(self.high, other.high))

    def is_unit(self, tolerance: float) -> bool:
        """Whether there are norms, and each is 1 within `tolerance`."""
        return 1.0 - tolerance <= self.low <= self.high <= 1.0 + tolerance

    def __str__(self) -> str:
        return f"{self.low:.4g} to {self.high:.4g}"


class Verdict(StrEnum):
    """What norms say of a layout."""

    UNIT = "unit"
    """The items are unit vectors: the layout is right."""
    RAW = "raw"
    """They are not, and nothing speaks for the other reading: accepted, normalised on load."""
    MISMATCH = "mismatch"
    """The vectors of the other reading are unit vectors, the items are not."""
    UNPROVEN = "unproven"
    """A flat file without unit vectors in either reading."""


def unit_tolerance(dtype: np.dtype[np.floating]) -> float:
    """How far from 1 the norm of a vector may lie that was normalised before it was rounded to `dtype`."""
    return 1e-2 if dtype.itemsize == 2 else 1e-3  # noqa: PLR2004 - bytes of float16


def judge(plan: MatrixPlan, *, metric: str, declared: NormRange, other: NormRange | None) -> Verdict:
    """Decide from the norms of the declared reading, and of the other one (None: they are not all unit).

    | items unit | other unit | file | cosine   | dot      |
    |------------|------------|------|----------|----------|
    | yes        | any        | any  | UNIT     | UNIT     |
    | no         | yes        | 2-D  | MISMATCH | RAW      |
    | no         | yes        | flat | MISMATCH | MISMATCH |
    | no         | no         | 2-D  | RAW      | RAW      |
    | no         | no         | flat | UNPROVEN | RAW      |

    Raw embeddings are legitimate, so a 2-D file needs evidence to be refused; a flat one, whose shape fits
    both readings, needs evidence to be accepted. For `dot` norms carry meaning, and prove something only
    where the other reading of a flat file is unit. With one row or one dimension norms prove nothing: RAW.
    """
    tolerance = unit_tolerance(plan.dtype)
    if declared.is_unit(tolerance):
        return Verdict.UNIT
    if min(plan.rows, plan.dim) == 1:
        return Verdict.RAW
    if other is not None and other.is_unit(tolerance):
        return Verdict.MISMATCH if plan.flat or metric == "cosine" else Verdict.RAW
    return Verdict.UNPROVEN if plan.flat and metric == "cosine" else Verdict.RAW


def refusal(plan: MatrixPlan, *, declared: NormRange, other: NormRange | None) -> LoadError:
    """The LoadError of a MISMATCH, `layout_mismatch`, or of an UNPROVEN, `layout_unproven`, at CHECK."""
    facts = {"norms": [declared.low, declared.high], "layout": plan.layout}
    if other is not None and other.is_unit(unit_tolerance(plan.dtype)):
        code, detail = LoadCode.LAYOUT_MISMATCH, _MISMATCHES[plan.layout]
        facts["other_norms"] = [other.low, other.high]
    else:
        code, detail = LoadCode.LAYOUT_UNPROVEN, _UNPROVEN
    text = detail.format(declared=declared, other=other, rows=plan.rows, dim=plan.dim)
    return LoadError(code, text, stage=Stage.CHECK, **facts)
