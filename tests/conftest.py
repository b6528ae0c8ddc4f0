"""What every test runs under: a blocked event loop is a failure, and so is a warning (pyproject.toml)."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest
from blockbuster import BlockBuster
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_configure() -> None:
    """On Python 3.11 pytest-asyncio asks for a current loop and so makes one that nobody closes.

    Hypothesis has no deadline: how long an example takes says how busy the machine is. In CI its examples are
    always the same: what a new one finds is for whoever runs the tests, not for whoever lands a change.

    A shell starts what it runs in the background with SIGINT ignored, and so would be what tests start.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio.set_event_loop(None)
    settings.register_profile(
        "kosine",
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        derandomize=os.environ.get("CI") == "true",
    )
    settings.load_profile("kosine")


@pytest.fixture(autouse=True)
def _no_blocking_on_the_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail whoever reads a file, waits for a lock or sleeps on the event loop from kosine's own code."""
    if not asyncio.iscoroutinefunction(getattr(request, "function", None)):
        yield
        return
    blockbuster = BlockBuster("kosine")
    # Making a client reads files, on the loop of the stores; that loop answers no queries.
    for call in blockbuster.functions.values():
        call.can_block_in("loading/storage/clients.py", {"use"})
    blockbuster.activate()
    try:
        yield
    finally:
        blockbuster.deactivate()
