"""The loop that tests of the server run in, and the object stores that tests share: one each per worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import uvloop

from tests.kit.object_stores import gcs_emulator, moto_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.kit.object_stores import ObjectServer


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """HTTP is tested in the loop it runs in: transports of uvloop and asyncio differ where it hurts."""
    if item.path.name.startswith("test_http_"):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture(scope="session")
def moto() -> Iterator[ObjectServer]:
    """S3."""
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def emulator() -> Iterator[ObjectServer]:
    """GCS."""
    with gcs_emulator() as server:
        yield server
