"""The real thread: it outlives what it runs, and hands back on the event loop."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from kosine.errors import EngineFailed
from kosine.serving.device_thread import DeviceThread
from kosine.serving.dispatcher import Dispatcher
from tests.kit.engines import NumpyEngine, matrix_of
from tests.kit.serving import never, unit, version_of


async def test_callers_are_answered_from_one_named_thread() -> None:
    """Law 5: the engine runs on `kosine-device` and never on the loop's thread."""
    seen: set[str] = set()

    def note(_: object) -> None:
        seen.add(threading.current_thread().name)

    device = DeviceThread()
    engine = NumpyEngine(matrix=matrix_of(np.eye(4)), fail_on=note)
    version = version_of(Dispatcher(device), engine=engine)

    answers = await asyncio.gather(
        *(version.batcher.search(unit(4, axis), 1, deadline=1e12, abandoned=never) for axis in range(4))
    )

    assert [[0], [1], [2], [3]] == [answer.ids for answer in answers]
    assert {"kosine-device"} == seen
    await device.close()


async def test_the_thread_outlives_a_batch_that_breaks_outside_the_engine() -> None:
    """Ids that do not cover the rows are a defect of ours: the callers are told, the thread serves on."""
    device = DeviceThread()
    dispatcher = Dispatcher(device)
    broken = version_of(dispatcher, ids=np.array(["only one"]))
    healthy = version_of(dispatcher)

    with pytest.raises(EngineFailed):
        await broken.batcher.search(unit(4, 3), 1, deadline=1e12, abandoned=never)

    assert [3] == (await healthy.batcher.search(unit(4, 3), 1, deadline=1e12, abandoned=never)).ids
    await device.close()
