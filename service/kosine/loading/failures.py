"""What a reloader finds wrong by itself."""

from __future__ import annotations

from kosine.errors import LoadCode, LoadError, Stage

__all__ = ("defect", "unsettled")


def unsettled() -> LoadError:
    """The source never rested."""
    return LoadError(
        LoadCode.UNSETTLED,
        "the source keeps changing and never rested long enough to be read; "
        "publish by renaming a complete file into place",
        stage=Stage.FINGERPRINT,
    )


def defect(stage: Stage) -> LoadError:
    """An exception that nobody expected; it is logged."""
    return LoadError(LoadCode.DEFECT, "a defect of kosine; the log has the traceback", stage=stage)
