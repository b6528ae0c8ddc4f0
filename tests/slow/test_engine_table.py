"""The engine table runs: timing is printed and never asserted."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SHAPES = ("--rows", "2000", "--dim", "8", "--k", "1", "--k", "10", "--batch", "1")


def test_the_table_has_a_line_for_each_shape() -> None:
    """Every combination is measured; without a Python that has faiss, against the floor alone."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.engine_table", *SHAPES],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    facts, head, *lines = done.stdout.splitlines()
    assert facts.startswith("GEMM ")
    assert ["rows", "dim", "k", "B", "floor", "kosine", "/floor"] == head.split()[:7]
    assert [["2000", "8", k, "1"] for k in ("1", "10")] == [line.split()[:4] for line in lines]
