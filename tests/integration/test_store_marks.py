"""N11, N12 and N14 over minutes: what callers meet while a store is at its worst is nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from tests.bench.store_marks import faults, replaced

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with capture_logs():
        yield


async def test_n11_n12_an_object_that_is_replaced_all_the_time_is_never_torn() -> None:
    """No answer fails or mixes two objects, and the last write is served."""
    outcome = await replaced(30)
    assert ((), ()) == (outcome.failed, outcome.wrong)
    assert outcome.asked > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_n11_n12_a_thousand_replacements() -> None:
    """The mark: in two sizes, under load."""
    outcome = await replaced(1000)
    assert ((), ()) == (outcome.failed, outcome.wrong)
    assert outcome.versions > 1


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_n14_two_minutes_of_faults() -> None:
    """The mark, compressed: the last good version answers everybody, and the last write is served."""
    outcome = await faults(120.0, seed=1)
    assert ((), ()) == (outcome.failed, outcome.wrong)
    assert outcome.versions > 1
