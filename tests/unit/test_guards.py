"""Guards decide from the header whether a valid file may replace what serves (N9, N19)."""

from __future__ import annotations

import pytest

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.guards import check_guards
from kosine.settings import GuardSettings
from tests.kit.serving import info_of

SERVED = info_of(rows=1000, dim=64)


@pytest.mark.parametrize(
    ("guard", "rows", "dim", "served"),
    [
        (GuardSettings(), 1, 64, SERVED),
        (GuardSettings(), 5, 3, None),
        (GuardSettings(dim_change="allow"), 1000, 128, SERVED),
        (GuardSettings(min_rows=10), 10, 64, None),
        (GuardSettings(max_shrink_percent=10), 900, 64, SERVED),
        (GuardSettings(max_shrink_percent=0), 1000, 64, SERVED),
        (GuardSettings(max_shrink_percent=0), 5000, 64, SERVED),
        (GuardSettings(max_shrink_percent=10), 1, 64, None),
    ],
)
def test_guards_let_pass(guard: GuardSettings, rows: int, dim: int, served: object) -> None:
    """Growth, an allowed shrink and a first load are nobody's business; bounds are inclusive."""
    check_guards(rows=rows, dim=dim, served=SERVED if served else None, guard=guard)


@pytest.mark.parametrize(
    ("guard", "rows", "dim", "served", "code", "facts"),
    [
        (GuardSettings(), 1000, 65, SERVED, LoadCode.DIM_CHANGED, {"dim": 65, "served_dim": 64}),
        (
            GuardSettings(min_rows=10),
            9,
            64,
            None,
            LoadCode.GUARD_FAILED,
            {"guard": "min_rows", "rows": 9, "min_rows": 10},
        ),
        (
            GuardSettings(max_shrink_percent=10),
            899,
            64,
            SERVED,
            LoadCode.GUARD_FAILED,
            {"guard": "max_shrink_percent", "rows": 899, "served_rows": 1000, "max_shrink_percent": 10},
        ),
    ],
)
def test_guards_refuse(
    guard: GuardSettings, rows: int, dim: int, served: object, code: LoadCode, facts: dict[str, object]
) -> None:
    """Each refusal has its code and the numbers, at the gate: nothing of the body was read yet."""
    with pytest.raises(LoadError) as caught:
        check_guards(rows=rows, dim=dim, served=SERVED if served else None, guard=guard)

    assert (code, Stage.GATE, facts) == (caught.value.code, caught.value.stage, caught.value.facts)
