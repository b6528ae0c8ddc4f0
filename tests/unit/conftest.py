"""What tests of engines share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kit.screened import set_screening

if TYPE_CHECKING:
    from kosine.engines.matrix import Order


@pytest.fixture(params=["dim_major", "row_major", "screened"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Order:
    """How items lie; they are screened where the parameter says so."""
    set_screening(monkeypatch, on=request.param == "screened")
    return "dim_major" if request.param == "dim_major" else "row_major"
