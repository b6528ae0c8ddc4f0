"""The load of `kosine bench`, over real sockets, against a server that misbehaves on purpose."""

from __future__ import annotations

import asyncio
from array import array
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kosine.bench.load import run_load
from kosine.bench.load_job import Job, Started, Target
from kosine.bench.samples import read_samples
from tests.kit.scripted_http import DROP, http_response, scripted_http

if TYPE_CHECKING:
    from collections.abc import Callable

    from kosine.bench.load_job import Progress
    from kosine.bench.samples import Samples
    from tests.kit.scripted_http import ScriptedHttp

QUERIES = 5
GOOD = http_response(b'{"n": 1}', headers="Server-Timing: queue;dur=1.5, engine;dur=2.5\r\n")


def requests() -> list[bytes]:
    bodies = [b"query %d" % number for number in range(QUERIES)]
    return [
        b"POST /indexes/items/cos HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        for body in bodies
    ]


async def load(
    server: ScriptedHttp,
    *,
    connections: int = 2,
    seconds: float = 5.0,
    overdue: float = 5.0,
    limit: int | None = None,
    arrivals: list[float] | None = None,
    started: Callable[[], None] = lambda: None,
) -> tuple[Samples, int]:
    """What became of it, and the longest backlog."""
    start: list[float] = []

    def tell(message: Started | Progress) -> None:
        if isinstance(message, Started):
            start.append(message.at)
            started()

    target = Target(host="127.0.0.1", port=server.port, requests=requests())
    job = Job(
        connections=connections,
        seconds=seconds,
        timeout=overdue,
        order=array("I", range(QUERIES)).tobytes(),
        arrivals=None if arrivals is None else array("d", arrivals).tobytes(),
        limit=limit,
    )
    finished = await run_load(target, job, tell)
    return read_samples(finished, start=start[0]), finished.backlog


async def test_a_closed_loop_asks_in_order_and_records_every_answer() -> None:
    """As many as the limit says, each query in turn, with what the server said of its time."""
    async with scripted_http(lambda _: GOOD) as server:
        samples, _ = await load(server, connections=1, limit=12)
    assert [number % QUERIES for number in range(12)] == samples.request.tolist()
    assert [b"query %d" % (number % QUERIES) for number in range(12)] == [
        line.split(b"HTTP/1.1 ")[1] for line in server.paths
    ]
    assert samples.ok.all()
    assert {0.0015} == set(samples.queue.tolist())
    assert {0.0025} == set(samples.engine.tolist())
    assert ([(number, b'{"n": 1}') for number in range(QUERIES)], 12) == (
        samples.answers,
        samples.times_given.sum(),
    )
    assert (samples.done > samples.sent).all()
    np.testing.assert_array_equal(samples.intended, samples.sent)


async def test_a_closed_loop_ends_when_its_time_is_over() -> None:
    """With what was under way answered, and nothing sent after the end."""
    async with scripted_http(lambda _: GOOD) as server:
        samples, _ = await load(server, connections=8, seconds=0.2)
    assert len(server.paths) == len(samples.ok)
    assert samples.ok.all()
    assert samples.sent.max() < 0.3


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (http_response(b'{"code": "overloaded"}', status="429 Too Many Requests"), "429 overloaded"),
        (http_response(b"<html>", status="502 Bad Gateway"), "502"),
        (b"SMTP ready\r\n\r\n", "bad_response"),
        (DROP, "connection_lost"),
    ],
)
async def test_a_failure_is_counted_by_what_it_was_and_the_load_goes_on(answer: bytes, outcome: str) -> None:
    """On a new connection where the old one is gone; a failed request has no answer and no latency."""
    async with scripted_http(lambda number: answer if number == 3 else GOOD) as server:
        samples, _ = await load(server, connections=1, limit=10)
    assert {outcome: 1} == samples.failures
    assert (10, 9) == (len(samples.ok), len(samples.latency))
    assert 10 == len(server.paths)


async def test_a_connection_the_server_closes_after_an_answer_loses_no_request() -> None:
    """`Connection: close` means: ask on another one."""
    closing = http_response(headers="Connection: close\r\n")
    async with scripted_http(lambda _: closing) as server:
        samples, _ = await load(server, connections=1, limit=4)
    assert ({}, 4) == (samples.failures, len(samples.latency))
    assert 4 == server.connections


async def test_a_request_that_is_never_answered_ends_as_a_timeout() -> None:
    """And the load with it: no run hangs on a service that does."""
    async with scripted_http(lambda _: GOOD) as server:
        samples, _ = await load(server, connections=3, limit=3, overdue=0.2, started=server.gate.clear)
    assert {"timeout": 3} == samples.failures


async def test_an_open_loop_counts_from_the_time_a_request_was_due() -> None:
    """Law of the open loop: a stall of the service is seen by all who came meanwhile, not by one of them."""
    stall, spacing = 0.4, 0.01
    due = [number * spacing for number in range(40)]

    async with scripted_http(lambda _: GOOD) as server:

        def stall_for_a_while() -> None:
            server.gate.clear()
            asyncio.get_running_loop().call_later(stall, server.gate.set)

        samples, backlog = await load(server, connections=1, arrivals=due, started=stall_for_a_while)

    assert ({}, len(due)) == (samples.failures, len(samples.ok))
    order = np.argsort(samples.intended)
    np.testing.assert_allclose(samples.intended[order], due, atol=1e-6)
    # Who came at t had to wait for the rest of the stall, although one connection had only one to send.
    rest = stall - 0.02 - samples.intended
    assert (samples.latency[rest > 0] >= rest[rest > 0]).all()
    assert np.count_nonzero(rest > 0) > 30
    assert backlog >= 30
    assert (samples.sent >= samples.intended).all()


async def test_an_open_loop_gives_up_what_never_found_a_connection() -> None:
    """Bounded: the backlog of a dead service times out like everything else."""
    async with scripted_http(lambda _: GOOD) as server:
        samples, _ = await load(
            server,
            connections=1,
            arrivals=[0.0, 0.0, 0.0],
            overdue=0.3,
            started=server.gate.clear,
        )
    assert {"timeout": 3} == samples.failures
    assert 1 == len(server.paths)


async def test_an_open_loop_sends_when_it_is_due() -> None:
    """Not before; a timer of the loop's own, in whole milliseconds, could not."""
    due = [number * 0.0037 for number in range(60)]
    async with scripted_http(lambda _: GOOD) as server:
        samples, _ = await load(server, connections=8, arrivals=due)
    assert (samples.sent >= samples.intended).all()
    assert ({}, len(due)) == (samples.failures, len(samples.ok))


async def test_without_a_server_there_is_no_load() -> None:
    """An error at once, not a run of failures."""
    async with scripted_http(lambda _: GOOD) as server:
        port = server.port
    job = Job(connections=1, seconds=1, timeout=1, order=array("I", [0]).tobytes())
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await run_load(Target(host="127.0.0.1", port=port, requests=requests()), job, lambda _: None)
