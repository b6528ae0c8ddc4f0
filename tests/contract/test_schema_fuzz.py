"""Whatever schemathesis makes of the schema, the service answers as the schema says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kosine.http.bodies.formats import ENCODERS
from kosine.serving.status import ReloadOutcome
from tests.kit.engines import NumpyEngine, matrix_of
from tests.kit.http_service import http_service

if TYPE_CHECKING:
    from tests.kit.http_service import HttpService
    from tests.kit.schema_fuzz import Fuzzed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


async def fuzzed(service: HttpService, cases: int) -> Fuzzed:
    """What came of a run against `items`."""
    kit = pytest.importorskip("tests.kit.schema_fuzz", reason="schemathesis is not installed")
    fuzzer = kit.Fuzzer(
        url=service.url,
        index="items",
        version="v1",
        dim=3,
        item="a",
        mask="in_stock",
        accepted=[*ENCODERS, "*/*", "text/csv"],
    )
    found: Fuzzed = await asyncio.to_thread(fuzzer.run, cases=cases)
    return found


async def test_no_answer_is_unexpected() -> None:
    """No 5xx, no status, media type, header or body that is not described; and enough were good."""
    async with http_service() as service:
        service.publish(
            engine=NumpyEngine(matrix=matrix_of(np.eye(3))),
            ids=np.array(["a", "b", "c"]),
            masks={"in_stock": [True, False, True]},
        )
        service.reloads.outcomes["items"] = ReloadOutcome(outcome="unchanged", version="v1")
        service.default_index = "items"
        found = await fuzzed(service, cases=8)

    assert {} == found.complaints
    assert 0 == found.server_errors
    good = {operation for operation, status in found.statuses if status == 200}
    assert {operation for operation, _ in found.statuses} == good
