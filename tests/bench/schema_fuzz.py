"""As many requests as one likes against a real service: `python -m tests.bench.schema_fuzz --requests 50000`.

Exit code 1 where an answer was unexpected: a 5xx, or one that the schema does not describe.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from itertools import count
from pathlib import Path

import httpx
import numpy as np

from kosine.http.bodies.formats import ENCODERS
from tests.kit.process import kosine_serve
from tests.kit.schema_fuzz import Fuzzed, Fuzzer

DIM = 3
CASES = 100
"""Of an operation and seed; more, and hypothesis remembers too much."""


def run(requests: int, *, first: int) -> Fuzzed:
    """Seed after seed until so many were sent."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "items.npy"), np.random.default_rng(0).standard_normal((1000, DIM)))
        np.save(Path(folder, "half.npy"), np.arange(1000) % 2 == 0)
        mask = f"indexes.items.masks.half={folder}/half.npy"
        with kosine_serve("--index", f"items={folder}/items.npy", "--set", mask) as service:
            service.wait_ready()
            version = httpx.get(f"{service.url}/indexes/items").json()["version"]
            fuzzer = Fuzzer(
                url=service.url,
                index="items",
                version=version,
                dim=DIM,
                item=7,
                mask="half",
                accepted=[*ENCODERS, "*/*"],
            )
            for number in count(first):
                found = fuzzer.run(cases=CASES, number=number)
                print(f"{found.requests} requests, {found.server_errors} of 5xx", file=sys.stderr)  # noqa: T201
                if found.requests >= requests:
                    return found
    raise AssertionError


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    found = run(options.requests, first=options.first_seed)
    print(told(found))  # noqa: T201
    return 1 if found.complaints or found.server_errors else 0


def told(found: Fuzzed) -> str:
    """For people."""
    lines = [
        f"{times:7} {status} {operation}" for (operation, status), times in sorted(found.statuses.items())
    ]
    kinds = [f"{kind}\n{text}\n" for kind, text in found.complaints.items()]
    summary = f"{found.requests} requests, {found.server_errors} of 5xx, {len(kinds)} kinds of complaint"
    return "\n".join([*lines, "", *kinds, summary])


if __name__ == "__main__":
    sys.exit(main())
