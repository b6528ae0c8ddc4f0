"""The batcher in virtual time: what goes together, what waits, what is refused, what is dropped."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kosine.engines.filters import RowFilter
from kosine.errors import Abandoned, DeadlineExceeded, EngineFailed, NotFinite, Overloaded, ShuttingDown
from kosine.metrics import Metrics
from kosine.serving.batcher import Batcher
from kosine.serving.dispatcher import Dispatcher
from kosine.serving.item_ids import ItemIds
from kosine.serving.options import RowOptions
from kosine.settings import BatchSettings
from tests.kit.engines import NumpyEngine, matrix_of
from tests.kit.serving import VirtualDevice, batcher_of, never, unit

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kosine.serving.batch import Answer

pytestmark = pytest.mark.looptime(start=0)

FAR = 1000.0


def ask(
    batcher: Batcher,
    axis: int = 0,
    *,
    k: int = 1,
    deadline: float = FAR,
    abandoned: Callable[[], bool] = never,
) -> asyncio.Task[Answer]:
    """One caller of its own."""
    return asyncio.get_running_loop().create_task(
        batcher.search(unit(4, axis), k, deadline=deadline, abandoned=abandoned)
    )


async def at(when: float) -> None:
    """Move virtual time on."""
    await asyncio.sleep(when - asyncio.get_running_loop().time())


async def outcome(task: asyncio.Task[Answer]) -> Any:
    """The ids of an answer, or the class of what was raised."""
    try:
        return (await task).ids
    except (Abandoned, DeadlineExceeded, EngineFailed, NotFinite, Overloaded, ShuttingDown) as error:
        return type(error)


async def test_callers_of_one_loop_turn_share_a_batch() -> None:
    """What is parsed in one turn of the loop goes to the device together."""
    device = VirtualDevice()
    batcher = batcher_of(device)

    answers = await asyncio.gather(*(ask(batcher, axis) for axis in range(4)))

    assert [[0], [1], [2], [3]] == [answer.ids for answer in answers]
    assert [(0.0, 4)] == device.batches
    assert {4} == {answer.rows for answer in answers}


async def test_rows_gather_while_the_device_is_busy() -> None:
    """Whatever comes during a call goes into the next one, and no timer is needed for that."""
    device = VirtualDevice(seconds=0.010)
    batcher = batcher_of(device, linger=0.0)
    first = ask(batcher)
    await at(0.002)
    second = [ask(batcher, axis) for axis in range(3)]
    await at(0.009)
    second.append(ask(batcher, 3))

    await asyncio.gather(first, *second)

    assert [(0.0, 1), (0.010, 4)] == device.batches


async def test_a_batch_never_exceeds_max_rows() -> None:
    """The maximum is hard: the rest waits for the next call."""
    device = VirtualDevice(seconds=0.010)
    batcher = batcher_of(device, max_rows=3, linger=0.0)

    await asyncio.gather(*(ask(batcher) for _ in range(8)))

    assert [3, 3, 2] == [rows for _, rows in device.batches]


async def test_a_linger_ends_as_soon_as_everybody_is_back() -> None:
    """Four were answered at 10 ms; four are back at 10.4 ms, so nobody waits until 11 ms."""
    device = VirtualDevice(seconds=0.010)
    batcher = batcher_of(device, linger=0.001)
    await asyncio.gather(*(ask(batcher) for _ in range(4)))
    again = []
    for step in range(4):
        await at(0.0101 + step * 0.0001)
        again.append(ask(batcher))

    await asyncio.gather(*again)

    assert [(0.0, 4), (0.0104, 4)] == device.batches


async def test_a_linger_lasts_one_millisecond_at_most() -> None:
    """One of four never comes back; the other three go when the linger is over."""
    device = VirtualDevice(seconds=0.010)
    batcher = batcher_of(device, linger=0.001)
    await asyncio.gather(*(ask(batcher) for _ in range(4)))
    await at(0.0102)

    await asyncio.gather(*(ask(batcher) for _ in range(3)))

    assert [(0.0, 4), (0.011, 3)] == device.batches


async def test_a_linger_is_timed_from_when_its_callers_have_their_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Handing answers out takes the loop as long as a linger lasts; nobody can come back before."""
    batcher, seen = batcher_of(VirtualDevice(seconds=0.010), linger=0.001), []
    loop = asyncio.get_running_loop()
    later = loop.call_later

    def timed(delay: float, call: Callable[..., object], *arguments: Any) -> asyncio.TimerHandle:
        if delay == 0.001:
            seen.append("linger")
        return later(delay, call, *arguments)

    async def caller() -> None:
        await batcher.search(unit(4, 0), 1, deadline=FAR, abandoned=never)
        seen.append("answer")

    monkeypatch.setattr(loop, "call_later", timed)
    await asyncio.gather(*(caller() for _ in range(3)))
    await at(0.012)

    assert ["answer"] * 3 + ["linger"] == seen


def ask_all(batcher: Batcher, *axes: int, k: int = 1) -> asyncio.Task[list[Answer | Exception]]:
    """One caller with several queries."""
    queries = [(unit(4, axis), None) for axis in axes]
    return asyncio.get_running_loop().create_task(
        batcher.search_all(queries, k, deadline=FAR, abandoned=never)
    )


def best(answers: list[Answer | Exception]) -> list[Any]:
    """The first id of each answer, or the name of the error."""
    return [type(each).__name__ if isinstance(each, Exception) else each.ids[0] for each in answers]


async def test_rows_of_one_request_are_spread_over_batches_and_shared_with_others() -> None:
    """Five rows and one more at `max_rows` 3 are two batches; the answers come in the order of the rows."""
    device = VirtualDevice(seconds=0.010)
    batcher = batcher_of(device, max_rows=3, linger=0.0)
    several, one = ask_all(batcher, 3, 2, 1, 0, 3), ask(batcher, 1)

    assert [3, 2, 1, 0, 3] == best(await several)
    assert [1] == (await one).ids
    assert [(0.0, 3), (0.010, 3)] == device.batches


async def test_no_rows_need_no_engine() -> None:
    """An empty list is answered by an empty list."""
    device = VirtualDevice()
    assert [] == await ask_all(batcher_of(device))
    assert [] == device.batches


async def test_rows_of_one_request_are_admitted_together_or_not_at_all() -> None:
    """The queue counts rows: three fit beside two of six, five do not and leave nothing behind."""
    batcher = batcher_of(VirtualDevice(seconds=0.010), max_rows=2, queue_rows=6, linger=0.0)
    running = ask_all(batcher, 0, 1)
    await at(0.001)
    waiting = ask_all(batcher, 0, 1)

    too_many, fitting = ask_all(batcher, 0, 1, 2, 3, 0), ask_all(batcher, 2, 3, 0)
    with pytest.raises(Overloaded) as refused:
        await too_many
    assert 6 == refused.value.facts["queue_rows"]
    assert 5 == batcher.queued_rows
    assert [[0, 1], [0, 1], [2, 3, 0]] == [
        best(each) for each in await asyncio.gather(running, waiting, fitting)
    ]


async def test_a_row_that_fails_in_the_engine_is_an_error_in_its_place() -> None:
    """The others of the same request are answered."""

    def fail(queries: NDArray[np.float32]) -> Exception | None:
        return ValueError("no") if queries[:, 2].any() else None

    engine = NumpyEngine(matrix=matrix_of(np.eye(4)), fail_on=fail)
    batcher = batcher_of(VirtualDevice(), engine=engine)

    assert [0, "EngineFailed", 1] == best(await ask_all(batcher, 0, 2, 1))


async def test_rows_of_a_caller_who_gave_up_are_not_computed() -> None:
    """Cancelling the request takes all of its rows out of the queue."""
    device = VirtualDevice(seconds=0.010)
    batcher = batcher_of(device, max_rows=2, linger=0.0)
    running, gone, stays = ask_all(batcher, 0, 1), ask_all(batcher, 0, 1, 2), ask(batcher, 3)
    await at(0.001)
    gone.cancel()

    await asyncio.gather(running, stays)
    assert [2, 1] == [rows for _, rows in device.batches]
    assert gone.cancelled()


async def test_one_caller_alone_never_waits_for_a_linger() -> None:
    """A closed loop of one: each query starts when it is sent."""
    device = VirtualDevice(seconds=0.010)
    batcher = batcher_of(device, linger=0.001)

    for _ in range(3):
        await ask(batcher)

    assert [(0.0, 1), (0.010, 1), (0.020, 1)] == device.batches


async def test_one_batch_mixes_any_k() -> None:
    """Every caller gets its own k out of one call; fewer rows than k answers all rows."""
    device = VirtualDevice()
    batcher = batcher_of(device)

    answers = await asyncio.gather(*(ask(batcher, 2, k=k) for k in (1, 3, 1000)))

    assert [1, 3, 4] == [len(answer.ids) for answer in answers]
    assert [[2], [2, 0, 1], [2, 0, 1, 3]] == [answer.ids for answer in answers]
    assert 1 == len(device.batches)


async def test_ids_replace_row_numbers() -> None:
    """An index with an ids file answers its ids."""
    batcher = batcher_of(VirtualDevice(), ids=np.array(["a", "b", "c", "d"]))

    assert ["c"] == (await ask(batcher, 2)).ids


async def test_the_queue_is_bounded_in_rows() -> None:
    """H18: past the bound a query is refused when it comes, with a time to retry; the others are served."""
    batcher = batcher_of(VirtualDevice(seconds=0.010), queue_rows=2, max_rows=2)
    tasks = [ask(batcher, axis) for axis in range(4)]

    outcomes = [await outcome(task) for task in tasks]

    assert [[0], [1], Overloaded, Overloaded] == outcomes
    error = tasks[3].exception()
    assert isinstance(error, Overloaded)
    assert 1 == error.retry_after


async def test_the_queue_is_bounded_in_bytes() -> None:
    """H18: 4 floats are 16 bytes, so 40 bytes hold two queries."""
    batcher = batcher_of(VirtualDevice(seconds=0.010), queue_bytes=40)

    outcomes = [await outcome(task) for task in [ask(batcher, axis) for axis in range(4)]]

    assert [[0], [1], Overloaded, Overloaded] == outcomes


async def test_filters_count_while_they_wait() -> None:
    """A query of 16 bytes with a filter of 12: one fits in 50, again and again, two at once do not."""
    batcher = batcher_of(VirtualDevice(seconds=0.010), queue_bytes=50)
    options = RowOptions(filter=RowFilter(excluded=np.array([1, 2, 3], np.int32)))

    def filtered() -> asyncio.Task[Answer]:
        asked = batcher.search(unit(4, 0), 1, deadline=FAR, abandoned=never, options=options)
        return asyncio.get_running_loop().create_task(asked)

    in_turn = [await outcome(filtered()) for _ in range(5)]
    at_once = [await outcome(task) for task in [filtered(), filtered()]]

    assert [[[0]] * 5, [[0], Overloaded]] == [in_turn, at_once]


async def test_the_dead_take_no_place_in_a_full_queue() -> None:
    """H15, H18: a queue full of callers who left lets the next one in."""
    gone = False
    batcher = batcher_of(VirtualDevice(seconds=0.010), queue_rows=2)
    running = ask(batcher)
    await at(0.001)
    left = [ask(batcher, abandoned=lambda: gone) for _ in range(2)]
    await at(0.002)
    gone = True

    late = ask(batcher, 3)

    assert [[0], Abandoned, Abandoned, [3]] == [await outcome(task) for task in (running, *left, late)]


async def test_a_client_that_left_is_not_computed() -> None:
    """H15: a row whose client has gone is dropped when the batch is formed; its mates go."""
    device = VirtualDevice(seconds=0.010)
    batcher = batcher_of(device, linger=0.0)
    gone = False
    tasks = [ask(batcher)]
    await at(0.001)
    tasks += [ask(batcher, 1), ask(batcher, 2, abandoned=lambda: gone), ask(batcher, 3)]
    await at(0.002)
    gone = True

    outcomes = [await outcome(task) for task in tasks]

    assert [[0], [1], Abandoned, [3]] == outcomes
    assert [1, 2] == [rows for _, rows in device.batches]


async def test_a_cancelled_caller_hurts_nobody() -> None:
    """H15: cancel one of three that are on the device and one that waits; all others are answered."""
    device = VirtualDevice(seconds=0.010)
    batcher = batcher_of(device, linger=0.0)
    on_device = [ask(batcher, axis) for axis in range(3)]
    await at(0.001)
    waiting = [ask(batcher, axis) for axis in range(3)]
    await at(0.002)
    on_device[1].cancel()
    waiting[0].cancel()

    answers = await asyncio.gather(*on_device, *waiting, return_exceptions=True)

    kept = [answer.ids for answer in answers if not isinstance(answer, BaseException)]
    assert [[0], [2], [1], [2]] == kept
    assert [3, 2] == [rows for _, rows in device.batches]


async def test_a_deadline_is_answered_on_time_while_the_device_hangs() -> None:
    """H17: 504 comes at the deadline, for rows that wait and for rows on the device."""
    loop = asyncio.get_running_loop()
    batcher = batcher_of(VirtualDevice(seconds=60.0))
    on_device = ask(batcher, deadline=2.0)
    await at(0.5)
    waiting = ask(batcher, deadline=1.0)

    assert DeadlineExceeded is await outcome(waiting)
    assert 1.0 == pytest.approx(loop.time())
    assert DeadlineExceeded is await outcome(on_device)
    assert 2.0 == pytest.approx(loop.time())


async def test_expired_work_is_not_sent_to_the_device() -> None:
    """H17: the batch after a long call holds only rows whose time is not up."""
    device = VirtualDevice(seconds=1.0)
    batcher = batcher_of(device, linger=0.0)
    first = ask(batcher)
    await at(0.1)
    short, long = ask(batcher, 1, deadline=0.5), ask(batcher, 2, deadline=5.0)

    assert [[0], DeadlineExceeded, [2]] == [await outcome(task) for task in (first, short, long)]
    assert [1, 1] == [rows for _, rows in device.batches]


async def test_a_deadline_in_the_past_is_refused_at_once() -> None:
    """H17: a query that cannot be answered in time does not enter the queue."""
    batcher = batcher_of(VirtualDevice())
    await at(1.0)

    assert DeadlineExceeded is await outcome(ask(batcher, deadline=1.0))
    assert 0 == batcher.queued_rows


async def test_one_row_the_engine_cannot_take_fails_alone() -> None:
    """H16: the engine raises on one of four rows; three callers get their answers, one gets engine_error."""

    def fail_on(queries: NDArray[np.float32]) -> Exception | None:
        return RuntimeError("secret detail") if (queries[:, 2] == 1).any() else None

    engine = NumpyEngine(matrix=matrix_of(np.eye(4)), fail_on=fail_on)
    batcher = batcher_of(VirtualDevice(), engine=engine)
    tasks = [ask(batcher, axis) for axis in range(4)]

    assert [[0], [1], EngineFailed, [3]] == [await outcome(task) for task in tasks]
    assert "secret" not in str(tasks[2].exception())


async def test_the_batcher_outlives_an_engine_that_fails_on_everything() -> None:
    """H16, H21: after failed batches and an open breaker, the first good answer brings everything back."""
    broken: list[Exception | None] = [RuntimeError("device gone")]
    engine = NumpyEngine(matrix=matrix_of(np.eye(4)), fail_on=lambda _: broken[0])
    batcher = batcher_of(VirtualDevice(), engine=engine)

    for _ in range(3):
        assert EngineFailed is await outcome(ask(batcher))
    calls = len(engine.batches)
    assert EngineFailed is await outcome(ask(batcher))
    assert calls == len(engine.batches), "an open breaker does not ask the engine"

    broken[0] = None
    await at(2.0)
    assert [0] == await outcome(ask(batcher))
    assert [1] == await outcome(ask(batcher, 1))


async def test_a_score_that_overflows_fails_its_own_row() -> None:
    """A dot product beyond float32 is told to its caller: no null in JSON, no fault of the engine."""
    matrix = matrix_of(np.eye(2) * 1e38, normalise=False)
    batcher = batcher_of(VirtualDevice(), engine=NumpyEngine(matrix=matrix, metric="dot"))
    loop = asyncio.get_running_loop()
    rows = [np.array(row, np.float32) for row in ([1e38, 0], [1, 0])]
    with np.errstate(over="ignore"):
        tasks = [loop.create_task(batcher.search(row, 1, deadline=FAR, abandoned=never)) for row in rows]
        assert [NotFinite, [0]] == [await outcome(task) for task in tasks]
    assert not batcher.breaker.is_open


async def test_draining_flushes_what_waits_and_still_answers_leaseholders() -> None:
    """Law 1: a query bound to a version that is being replaced is answered by it, without a linger."""
    device = VirtualDevice(seconds=0.010)
    batcher = batcher_of(device, linger=0.001)
    await asyncio.gather(*(ask(batcher) for _ in range(4)))
    held = ask(batcher, 1)
    await asyncio.sleep(0)

    batcher.drain()

    assert [1] == await outcome(held)
    assert (0.010, 1) == device.batches[-1]
    assert [2] == await outcome(ask(batcher, 2))


async def test_closing_answers_everybody() -> None:
    """Nobody is left hanging: rows on the device and in the queue get shutting_down, later ones too."""
    device = VirtualDevice(seconds=60.0)
    batcher = batcher_of(device)
    tasks = [ask(batcher)]
    await at(0.1)
    tasks.append(ask(batcher))
    await at(0.2)

    engine = batcher.close()

    assert engine is not None
    assert [ShuttingDown, ShuttingDown] == [await outcome(task) for task in tasks]
    assert ShuttingDown is await outcome(ask(batcher))
    assert batcher.close() is None


async def test_indexes_take_turns_on_the_device() -> None:
    """H19: with one index flooded, a query of the other waits for one batch, not for the flood."""
    device = VirtualDevice(seconds=0.010)
    dispatcher = Dispatcher(device)
    metrics = Metrics()

    def batcher(name: str) -> Batcher:
        return Batcher(
            engine=NumpyEngine(matrix=matrix_of(np.eye(4))),
            ids=ItemIds(None, 4),
            settings=BatchSettings(max_rows=2, linger=0.0),  # type: ignore[arg-type]
            dispatcher=dispatcher,
            metrics=metrics.of(name),
        )

    flooded, calm = batcher("flooded"), batcher("calm")
    flood = [ask(flooded) for _ in range(20)]
    await at(0.005)

    await ask(calm)

    assert 0.020 == pytest.approx(asyncio.get_running_loop().time())
    await asyncio.gather(*flood)


async def test_settings_change_while_it_serves() -> None:
    """A new max_rows applies to the next batch."""
    device = VirtualDevice(seconds=0.010)
    batcher = batcher_of(device, max_rows=4, linger=0.0)
    tasks = [ask(batcher) for _ in range(6)]
    await at(0.001)

    batcher.configure(BatchSettings(max_rows=1, linger=0.0))  # type: ignore[arg-type]

    await asyncio.gather(*tasks)
    assert [4, 1, 1] == [rows for _, rows in device.batches]
