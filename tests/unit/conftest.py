"""What tests of engines share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kosine.engines.matrix import Order


@pytest.fixture(params=["dim_major", "row_major", "screened"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Order:
    """How items lie. Small as they are in tests, they are screened where the parameter says so."""
    for name in ("_LEAST_ROWS_EACH", "_LEAST_ASKED"):
        monkeypatch.setattr(f"kosine.engines.screening.{name}", 0 if request.param == "screened" else 2**62)
    return "dim_major" if request.param == "dim_major" else "row_major"
