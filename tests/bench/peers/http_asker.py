"""Asks a started HTTP peer, by the load process of `kosine bench` or by wrk, and judges what it answers."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kosine.bench.load_job import NO_ANSWER, Finished, Job
from kosine.bench.percentiles import percentiles
from tests.bench.peers.peer import Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from kosine.bench.load_process import LoadProcess
    from kosine.bench.wrk import Wrk
    from tests.bench.peers.peer import Data

__all__ = ("HttpAsker",)

_START_SECONDS = 300.0
_TIMEOUT = 30.0
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAsker:
    """Implements `Asker`."""

    load: LoadProcess
    port: int
    data: Data
    ids: Callable[[bytes], list[int]]
    wrk: Wrk | None = None
    """A client in C leaves more of two cores to whom it asks; it keeps no answers."""
    checked: dict[int, Window] = field(default_factory=dict)
    """By connections: what became of every query, asked once before wrk was first let loose with as many."""

    def ask(self, *, connections: int, seconds: float) -> Window:
        """See `Asker.ask`; with wrk what is judged are the answers of `checked`."""
        if self.wrk is None:
            return self._judged(self.load.run(self._job(connections, seconds)), seconds)
        if connections not in self.checked:
            once = self._job(min(connections, 16), 60.0, limit=len(self.data.queries))
            self.checked[connections] = self._judged(self.load.run(once), 60.0)
        checked = self.checked[connections]
        result = self.wrk.run(
            f"http://{_HOST}:{self.port}/",
            connections=connections,
            seconds=seconds,
            timeout=_TIMEOUT,
            started=lambda _: None,
        )
        assert result.total is not None, f"wrk was answered nothing: {result.failures}"
        return Window(
            throughput=result.answered / result.seconds,
            p50=result.total.p50,
            p99=result.total.p99,
            recall=checked.recall,
            failed=checked.failed + sum(result.failures.values()),
        )

    def wait(self, alive: Callable[[], bool], name: str) -> None:
        """Until one query is answered."""
        deadline = time.monotonic() + _START_SECONDS
        job = Job(connections=1, seconds=1.0, timeout=10.0, order=np.uint32(0).tobytes(), limit=1)
        last = "nobody listens"
        while True:
            assert alive(), f"{name} ended before it answered"
            assert time.monotonic() < deadline, f"{name} does not answer: {last}"
            if _listens(self.port):
                outcomes = self.load.run(job).outcomes
                if len(outcomes) == 1:
                    return
                last = outcomes[1]
                # Triton listens before it has its model.
                refused = last.startswith("4") and not last.startswith("404")
                assert not refused, f"{name} refuses a query: {last}"
            time.sleep(0.2)

    def _job(self, connections: int, seconds: float, *, limit: int | None = None) -> Job:
        order = np.arange(len(self.data.queries), dtype=np.uint32).tobytes()
        return Job(connections=connections, seconds=seconds, timeout=_TIMEOUT, order=order, limit=limit)

    def _judged(self, finished: Finished, seconds: float) -> Window:
        answer = np.frombuffer(finished.answer, np.uint32)
        good = answer != NO_ANSWER
        taken = np.frombuffer(finished.done) - np.frombuffer(finished.sent)
        found = percentiles(taken[good])
        hits = [
            len(set(self.ids(body)) & set(self.data.exact[query].tolist()))
            for query, body in finished.answers
        ]
        return Window(
            throughput=int(good.sum()) / seconds,
            p50=found.p50 if found else float("nan"),
            p99=found.p99 if found else float("nan"),
            recall=sum(hits) / (len(hits) * self.data.k) if hits else float("nan"),
            failed=int((~good).sum()),
        )


def _listens(port: int) -> bool:
    try:
        socket.create_connection((_HOST, port), timeout=1).close()
    except OSError:
        return False
    return True
