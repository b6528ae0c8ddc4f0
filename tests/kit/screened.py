"""Small as matrices are in tests, whether they are screened is said here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kosine.engines.search_plan import ROWS_PER_RESULT

if TYPE_CHECKING:
    import pytest

__all__ = ("set_screening",)

_NEVER = 2**62


def set_screening(monkeypatch: pytest.MonkeyPatch, *, on: bool) -> None:
    """Screen row-major items wherever blocks are used, or nowhere."""
    least = ROWS_PER_RESULT if on else _NEVER
    monkeypatch.setattr("kosine.engines.screening._LEAST_ROWS_EACH", least)
