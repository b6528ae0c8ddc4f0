"""What a valid file must also satisfy before it replaces the version that serves; decided from its size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kosine.errors import LoadCode, LoadError, Stage

if TYPE_CHECKING:
    from kosine.serving.status import VersionInfo
    from kosine.settings import GuardSettings

__all__ = ("check_guards",)


def check_guards(
    *, rows: int, dim: int, served: VersionInfo | None, guard: GuardSettings, stage: Stage = Stage.GATE
) -> None:
    """LoadError `dim_changed` or `guard_failed` at `stage`; `served`: the last published version, if any."""
    if guard.min_rows is not None and rows < guard.min_rows:
        raise LoadError(
            LoadCode.GUARD_FAILED,
            f"the file has {rows} rows, guard.min_rows expects at least {guard.min_rows}",
            stage=stage,
            guard="min_rows",
            rows=rows,
            min_rows=guard.min_rows,
        )
    if served is None:
        return
    if guard.dim_change == "refuse" and dim != served.dim:
        raise LoadError(
            LoadCode.DIM_CHANGED,
            f"the file has dimension {dim}, the served version has {served.dim}; "
            "set guard.dim_change: allow if callers are ready for it",
            stage=stage,
            dim=dim,
            served_dim=served.dim,
        )
    _check_shrink(rows, served.rows, guard.max_shrink_percent, stage)


def _check_shrink(rows: int, served: int, allowed: float | None, stage: Stage) -> None:
    if allowed is None or rows >= served:
        return
    lost = 100.0 * (served - rows) / served
    if lost > allowed:
        raise LoadError(
            LoadCode.GUARD_FAILED,
            f"the file has {rows} rows, {lost:.1f} % fewer than the {served} being served; "
            f"guard.max_shrink_percent allows {allowed:g} %",
            stage=stage,
            guard="max_shrink_percent",
            rows=rows,
            served_rows=served,
            max_shrink_percent=allowed,
        )
