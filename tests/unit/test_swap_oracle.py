"""The oracle of the swap test sees every wrong it is there to see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.kit.swap_oracle import Observation, SwapOracle, generation

QUERIES = np.random.default_rng(0).standard_normal((4, 8), dtype=np.float32)


def best(seed: int, query: int = 0) -> tuple[int, ...]:
    rows = generation(seed, rows=100, dim=8)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return tuple(np.argsort(-(rows @ QUERIES[query]))[:10].tolist())


def seen(seed: int, version: str, **changes: object) -> Observation:
    honest = Observation(
        connection=0,
        query=0,
        status=200,
        version=version,
        ids=best(seed),
        newest_at_send=1,
        newest_at_receive=2,
    )
    return replace(honest, **changes)  # type: ignore[arg-type]


@pytest.fixture
def oracle() -> SwapOracle:
    oracle = SwapOracle(QUERIES, k=10)
    for seed in (1, 2):
        oracle.learn(seed, generation(seed, rows=100, dim=8))
    return oracle


def test_honest_answers_pass(oracle: SwapOracle) -> None:
    """Old answers before new ones, each of one generation, are what a swap should look like."""
    assert [] == oracle.violations([seen(1, "a"), seen(1, "a"), seen(2, "b")])


@pytest.mark.parametrize(
    ("wrong", "observations"),
    [
        ("mixed", [seen(1, "a", ids=best(1)[:5] + best(2)[5:])]),
        ("mixed", [seen(1, "a", query=1)]),
        ("went back", [seen(2, "b"), seen(1, "a")]),
        ("mislabelled", [seen(1, "a"), seen(2, "a")]),
        ("failed", [seen(1, "a", status=503)]),
        ("stale", [seen(1, "a", newest_at_send=2)]),
        ("stale", [seen(2, "b", newest_at_receive=1)]),
    ],
)
def test_a_planted_wrong_is_seen(oracle: SwapOracle, wrong: str, observations: list[Observation]) -> None:
    """G1: mix, mislabel, drop, regress: each is caught by its name."""
    assert [wrong] == [violation.split(":")[0] for violation in oracle.violations(observations)]
