"""One row per request, in columns that grow without making objects."""

from __future__ import annotations

import re
from array import array
from math import nan
from typing import TYPE_CHECKING

from kosine.bench.load_job import NO_ANSWER, Finished

if TYPE_CHECKING:
    from kosine.bench.connection import Exchange

__all__ = ("Records",)

_METRIC = re.compile(rb"(queue|engine)\s*;[^,]*?dur=([0-9.]+)")
_MILLISECOND = 1e-3


class Records:
    """What became of every request; answers are kept once each."""

    def __init__(self) -> None:
        self.answered = 0
        self.failed = 0
        self._times = (array("d"), array("d"), array("d"))
        self._request = array("I")
        self._outcome = array("I")
        self._answer = array("I")
        self._queue = array("d")
        self._engine = array("d")
        self._outcomes = {"ok": 0}
        self._answers: dict[tuple[int, bytes], int] = {}

    def ok(self, exchange: Exchange, done: float, body: bytes, timing: bytes) -> None:
        """An answer with status 200; `timing` is its Server-Timing header."""
        self.answered += 1
        key = (exchange.request, body)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answers[key] = len(self._answers)
        self._add(exchange, done, 0, answer)
        queue = engine = nan
        for name, value in _METRIC.findall(timing):
            if name == b"queue":
                queue = float(value) * _MILLISECOND
            else:
                engine = float(value) * _MILLISECOND
        self._queue.append(queue)
        self._engine.append(engine)

    def failure(self, exchange: Exchange, done: float, outcome: str) -> None:
        """Anything else; `outcome` says what, in few words of a bounded set."""
        self.failed += 1
        self._add(exchange, done, self._outcomes.setdefault(outcome, len(self._outcomes)), NO_ANSWER)
        self._queue.append(nan)
        self._engine.append(nan)

    def _add(self, exchange: Exchange, done: float, outcome: int, answer: int) -> None:
        intended, sent, ended = self._times
        intended.append(exchange.intended)
        sent.append(exchange.sent)
        ended.append(done)
        self._request.append(exchange.request)
        self._outcome.append(outcome)
        self._answer.append(answer)

    def finished(self, *, cpu_seconds: float, stopped: float, backlog: int) -> Finished:
        """Everything so far, as a message."""
        intended, sent, done = (column.tobytes() for column in self._times)
        return Finished(
            cpu_seconds=cpu_seconds,
            stopped=stopped,
            backlog=backlog,
            intended=intended,
            sent=sent,
            done=done,
            request=self._request.tobytes(),
            outcome=self._outcome.tobytes(),
            answer=self._answer.tobytes(),
            queue=self._queue.tobytes(),
            engine=self._engine.tobytes(),
            outcomes=list(self._outcomes),
            answers=list(self._answers),
        )
