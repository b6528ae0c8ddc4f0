"""What `helm test` runs in its pod, against a running service."""

from __future__ import annotations

import asyncio
import sys

from tests.kit.chart_files import CHARTS
from tests.kit.http_service import HttpService, http_service

SCRIPT = CHARTS / "kosine" / "files" / "query.py"


async def run_against(service: HttpService) -> tuple[int | None, str]:
    """Exit code and output, run as the pod does: the text after `python -c`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SCRIPT.read_text(encoding="utf-8"),
        service.url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"no_proxy": "*"},
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_a_release_that_answers_passes() -> None:
    """Every index is asked; what it answered is shown."""
    async with http_service() as service:
        service.publish("items")
        code, output = await run_against(service)
    assert (0, True) == (code, output.startswith("items: {'result': [["))


async def test_an_index_that_is_not_loaded_fails_the_test_by_name() -> None:
    """The other indexes are asked all the same."""
    async with http_service() as service:
        service.publish("items")
        service.registry.declare("users", source="users.npy", required=True)
        code, output = await run_against(service)
    assert 1 == code
    assert "items: {'result'" in output
    assert "users: expected state available, got loading; GET /indexes/users says why" in output
