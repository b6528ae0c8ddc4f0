"""The loop that tests of the server run in, and the object stores that tests share: one each per worker."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvloop

from tests.kit.object_stores import fake_gcs_server, gcs_emulator, moto_server, versitygw_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.kit.object_stores import ObjectServer

_BUILD = Path(__file__).parents[1] / "kit/store_servers/build"


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


@pytest.fixture(scope="session")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """S3 as people run it; of the tier `stores`."""
    with versitygw_server(_program("versitygw"), tmp_path_factory.mktemp("versitygw")) as server:
        yield server


@pytest.fixture(scope="session")
def fake_gcs() -> Iterator[ObjectServer]:
    """GCS that compares before it writes; of the tier `stores`."""
    with fake_gcs_server(_program("fake-gcs-server")) as server:
        yield server


def _program(name: str) -> Path:
    """Built by `make store-servers`. Where there is none the test is skipped, in CI it fails."""
    folder = os.environ.get("KOSINE_STORE_SERVERS")
    if folder is None:
        found = subprocess.run([_BUILD, "--where"], capture_output=True, text=True, check=False)
        folder = found.stdout.strip()
        said = found.stderr.strip() or f"{name} is not built; run: make store-servers"
    else:
        said = f"KOSINE_STORE_SERVERS names {folder}, which has no {name}"
    program = Path(folder, name)
    if folder and program.is_file():
        return program
    if os.environ.get("CI") == "true":
        pytest.fail(said)
    pytest.skip(said)
