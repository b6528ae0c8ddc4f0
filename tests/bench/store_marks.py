"""Long runs against a store: an object that is replaced all the time, and a store that misbehaves.

    python -m tests.bench.store_marks replaced [--times 1000]
    python -m tests.bench.store_marks faults [--seconds 1200] [--seed 1]

Callers ask throughout and check each answer against the object that its version was made of. Printed are
the answers that failed, those that were wrong (torn, or of nothing that was written), the versions that
served, and how long after the last write it was served.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.kit.fault_proxy import Fault, fault_proxy
from tests.kit.object_stores import moto_server
from tests.kit.store_service import Callers, generation, store_service

if TYPE_CHECKING:
    from tests.kit.fault_proxy import Request
    from tests.kit.loads import Rig
    from tests.kit.object_stores import ObjectServer

__all__ = ("Outcome", "faults", "replaced")

_KEY = "items.npy"
_INTERVAL = 0.2
_MOST_GENERATIONS = 1200
_EVERY_REQUEST = (
    Fault(status=503),
    Fault(status=500),
    Fault(status=403),
    Fault(status=404),
    Fault(status=429, headers={"retry-after": "1"}),
    Fault(delay=0.3),
    Fault(delay=30.0),
    Fault(status=302, headers={"location": "http://store.invalid/"}),
)
_RANGES = (
    Fault(cut_after=700),
    Fault(reset_after=0),
    Fault(stall_after=300),
    Fault(drip=0.01),
    Fault(headers={"etag": '"another"'}),
    Fault(headers={"content-range": "bytes 0-9/10"}),
    Fault(status=403),
    Fault(status=503),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the callers met."""

    asked: int
    failed: tuple[str, ...]
    wrong: tuple[str, ...]
    versions: int
    last_served_after: float
    """Seconds from the end of the last write to its version."""


async def replaced(times: int) -> Outcome:
    """Replace the object `times` times, in two sizes, as fast as the store takes it."""
    with moto_server() as store:
        store.put(_KEY, generation(0).content)
        async with store_service(store.endpoint, interval=_INTERVAL) as running:
            await _serves(running, 0)
            callers = Callers(running)
            async with callers.asking(4, range(times + 1)):
                for number in range(1, times + 1):
                    await asyncio.to_thread(store.put, _KEY, generation(number).content)
                began = time.monotonic()
                await _serves(running, times)
            return _outcome(callers, time.monotonic() - began)


async def faults(seconds: float, *, seed: int) -> Outcome:
    """Faults of every kind in turn for so long, about one write a second, then peace and a last write."""
    rng = random.Random(seed)
    with moto_server() as store, fault_proxy(store.endpoint) as proxy:
        store.put(_KEY, generation(0).content)
        async with store_service(proxy.endpoint, interval=_INTERVAL) as running:
            await _serves(running, 0)
            callers = Callers(running)
            last = min(_MOST_GENERATIONS, int(seconds) + 1)
            async with callers.asking(4, range(last + 1)):
                schedule = _Schedule(rng)
                proxy.script = schedule.fault
                await _write_for(seconds, store, last, rng)
                proxy.script = lambda _: None
                await asyncio.to_thread(store.put, _KEY, generation(last).content)
                began = time.monotonic()
                await _serves(running, last)
            return _outcome(callers, time.monotonic() - began)


class _Schedule:
    """One fault at a time, each for up to four seconds, with peace between them."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._until = 0.0
        self._current: Fault | None = None

    def fault(self, request: Request) -> Fault | None:
        """What becomes of this request; called in any thread."""
        if time.monotonic() >= self._until:
            self._until = time.monotonic() + self._rng.uniform(0.5, 4.0)
            self._current = self._rng.choice((None, None, *_EVERY_REQUEST, *_RANGES))
        current = self._current
        return current if current in _EVERY_REQUEST or "range" in request.headers else None


async def _write_for(seconds: float, store: ObjectServer, last: int, rng: random.Random) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        await asyncio.to_thread(store.put, _KEY, generation(rng.randrange(last)).content)
        await asyncio.sleep(rng.uniform(0.2, 2.0))


async def _serves(running: Rig, number: int) -> None:
    digest = generation(number).digest

    def serving() -> bool:
        current = running.registry.current("items")
        return current is not None and current.info.digest == digest

    await running.registry.until(serving, within=90)


def _outcome(callers: Callers, last_served_after: float) -> Outcome:
    return Outcome(
        asked=callers.asked,
        failed=tuple(callers.failed),
        wrong=tuple(callers.wrong),
        versions=len(callers.running.registry.published),
        last_served_after=last_served_after,
    )


def main() -> None:
    """Run one of them and print what came out."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("mark", choices=("replaced", "faults"))
    options.add_argument("--times", type=int, default=1000)
    options.add_argument("--seconds", type=float, default=1200.0)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    run = replaced(chosen.times) if chosen.mark == "replaced" else faults(chosen.seconds, seed=chosen.seed)
    outcome = asyncio.run(run)
    print(  # noqa: T201
        f"asked {outcome.asked}, failed {len(outcome.failed)}, wrong {len(outcome.wrong)}, "
        f"versions {outcome.versions}, last write served after {outcome.last_served_after:.2f} s"
    )


if __name__ == "__main__":
    main()
