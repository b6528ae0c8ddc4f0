"""What tests of engines share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kosine.engines.search_plan import ROWS_PER_RESULT

if TYPE_CHECKING:
    from kosine.engines.matrix import Order


@pytest.fixture(params=["dim_major", "row_major", "screened"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Order:
    """How items lie. Small as they are in tests, they are screened where the parameter says so."""
    screened = request.param == "screened"
    for name, least in (("_LEAST_ROWS_EACH", ROWS_PER_RESULT), ("_LEAST_ASKED", 0)):
        monkeypatch.setattr(f"kosine.engines.screening.{name}", least if screened else 2**62)
    return "dim_major" if request.param == "dim_major" else "row_major"
