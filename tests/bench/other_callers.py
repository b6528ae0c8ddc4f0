"""What some callers cost all of them: `python -m tests.bench.other_callers`; needs wrk (Debian: wrk).

A service that was started for this is asked by turns: plain queries with k=10, the same with k=100, and the
same of which one in a hundred has a number too few. Printed are answers a second, and the median over the
rounds of their ratio to plain ones. Refusals that the malformed bodies do not explain are an error.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
import msgspec
import numpy as np

from kosine.bench.service_process import ServiceProcess
from kosine.bench.wrk import Wrk

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATH = "/indexes/items/cos"
_QUERIES = 1000
_ONE_IN = 100
_MALFORMED = "1 % malformed"
_REFUSAL = "422 dim_mismatch"


def _loads(dim: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    queries = np.random.default_rng(1).standard_normal((_QUERIES, dim)).round(8).tolist()
    yield "plain", [{"embedding": query} for query in queries]
    yield "k=100", [{"embedding": query, "k": 100} for query in queries]
    starts = [1 if at % _ONE_IN == 0 else 0 for at in range(_QUERIES)]
    yield _MALFORMED, [{"embedding": query[start:]} for query, start in zip(queries, starts, strict=True)]


def _good(wrk: Wrk, url: str, *, connections: int, seconds: float, malformed: bool) -> float:
    """Answers a second."""
    result = wrk.run(url, connections=connections, seconds=seconds, timeout=10.0, started=lambda _: None)
    refused = result.failures.pop(_REFUSAL, 0)
    assert not result.failures, f"failed: {result.failures}"
    # wrk leaves what is in flight at the end, and begins anew each time.
    expected = (result.answered + refused) / _ONE_IN if malformed else 0
    assert abs(refused - expected) <= connections, f"{refused} refused, {expected:.0f} malformed"
    return result.answered / result.seconds


@click.command(help=__doc__)
@click.option("--rows", default=100_000, show_default=True)
@click.option("--dim", default=100, show_default=True)
@click.option("-c", "connections", default=64, show_default=True)
@click.option("--rounds", default=7, show_default=True)
@click.option("--seconds", default=2.0, show_default=True, help="Of one window.")
def main(rows: int, dim: int, connections: int, rounds: int, seconds: float) -> None:
    """See above."""
    installed = Wrk.find()
    if installed is None:
        raise click.UsageError("wrk is not installed (Debian: apt-get install wrk)")
    with TemporaryDirectory(prefix="kosine-callers-") as name:
        folder = Path(name)
        np.save(folder / "items.npy", np.random.default_rng(0).standard_normal((rows, dim), np.float32))
        senders = {}
        for load, bodies in _loads(dim):
            (folder / load).mkdir()
            requests = [(_PATH, msgspec.json.encode(body)) for body in bodies]
            senders[load] = Wrk(installed, folder / load, requests=requests, order=range(_QUERIES))
        found = defaultdict(list)
        with ServiceProcess({"items": folder / "items.npy"}, edits=()) as service:
            url = service.wait_ready().url
            for number in range(rounds):
                # There and back: a window is not always behind the same one.
                turns = list(senders.items())[:: 1 if number % 2 == 0 else -1]
                for load, wrk in turns:
                    good = _good(
                        wrk, url, connections=connections, seconds=seconds, malformed=load == _MALFORMED
                    )
                    found[load].append(good)
                    click.echo(f"{load}: {good:.0f} answers a second", err=True)
    for load, answers in found.items():
        ratio = median(each / plain for each, plain in zip(answers, found["plain"], strict=True))
        click.echo(f"{load}: {median(answers):.0f} answers a second, {ratio:.3f} of plain")


if __name__ == "__main__":
    main()
