"""A steady load on one URL: `python -m tests.kit.steady_load URL BODY RATE` posts until SIGTERM.

In a process of its own, so that nobody waits for the tests' Python. A request is due every 1/RATE seconds
whether or not those before it were answered; it takes the connection that has been idle longest. All
connections are kept alive, so each meets every pod that ends. Nothing is retried: what a caller without any
patience would see is a failure. Prints a line when it runs, and at its end a report as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("Report", "steady_load")

_CONNECTIONS = 16
_TIMEOUT = aiohttp.ClientTimeout(total=60)
_RUNNING_AFTER = 100


@dataclass(slots=True)
class Report:
    """What became of the requests; complete behind the block."""

    answered: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    """How many by what was seen instead of an answer."""
    seconds: float = 0.0


@contextlib.contextmanager
def steady_load(url: str, body: dict[str, Any], *, rate: int) -> Iterator[Report]:
    """Post `body` `rate` times a second during the block."""
    report = Report()
    command = [sys.executable, "-m", "tests.kit.steady_load", url, json.dumps(body), str(rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n", "the load does not run"
            yield report
        finally:
            process.terminate()
            said, _ = process.communicate(timeout=120)
    found = json.loads(said)
    report.answered, report.failures, report.seconds = found["answered"], found["failures"], found["seconds"]


class _Load:
    def __init__(self, url: str, body: dict[str, Any], rate: int) -> None:
        self._url = url
        self._body = body
        self._rate = rate
        self._due: asyncio.Queue[None] = asyncio.Queue()
        self._answered = 0
        self._failures: Counter[str] = Counter()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        stop, began = asyncio.Event(), loop.time()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        callers = [asyncio.create_task(self._call()) for _ in range(_CONNECTIONS)]
        sent = 0
        while not stop.is_set():
            for _ in range(int((loop.time() - began) * self._rate) - sent):
                self._due.put_nowait(None)
                sent += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 1 / self._rate)
        await self._due.join()
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        seconds = round(loop.time() - began, 1)
        _say(json.dumps({"answered": self._answered, "failures": self._failures, "seconds": seconds}))

    async def _call(self) -> None:
        connector = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as session:
            while True:
                await self._due.get()
                failure = await self._post(session)
                if failure is None:
                    self._answered += 1
                else:
                    self._failures[failure] += 1
                if self._answered == _RUNNING_AFTER and failure is None:
                    _say("running")
                self._due.task_done()

    async def _post(self, session: aiohttp.ClientSession) -> str | None:
        try:
            async with session.post(self._url, json=self._body) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            return repr(error)
        return None if answer.status == 200 else f"{answer.status} {text}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    url, body, rate = sys.argv[1:]
    asyncio.run(_Load(url, json.loads(body), int(rate)).run())
