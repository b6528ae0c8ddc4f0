"""Logging refusals must never become the overload."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from kosine.errors import DimMismatch, InternalError, Overloaded, RequestError
from kosine.http.failure_log import FailureLog, TokenBucket


@pytest.mark.parametrize(
    ("law", "moments", "expected"),
    [
        ("a burst passes, then nothing", [0.0] * 5, 3),
        ("one token comes back each half second", [0.0, 0.0, 0.0, 0.4, 0.5, 0.6, 1.0], 5),
        ("a long rest fills the bucket, and no more", [0.0] * 3 + [100.0] * 5, 6),
    ],
)
def test_token_bucket(law: str, moments: list[float], expected: int) -> None:
    """`rate` 2 a second, `burst` 3."""
    bucket = TokenBucket(rate=2.0, burst=3.0)

    assert expected == sum(bucket.take(now) for now in moments), law


def written(refusals: list[tuple[float, RequestError]]) -> list[tuple[str, int]]:
    """(code, suppressed before it) of every line."""
    now = 0.0
    log = FailureLog(rate=1.0, burst=2.0, clock=lambda: now)
    with capture_logs() as lines:
        for now, error in refusals:  # noqa: B007  the clock reads it
            log.write(error, request_id="r")
    return [(line["code"], line.get("suppressed", 0)) for line in lines]


def test_a_flood_of_one_code_is_told_by_number() -> None:
    """H18: of ten refusals in a moment two are written; the next one tells of the other eight."""
    flood: list[tuple[float, RequestError]] = [(0.0, Overloaded("full"))] * 10

    assert [("overloaded", 0), ("overloaded", 0), ("overloaded", 8)] == written(
        [*flood, (5.0, Overloaded("full"))]
    )


def test_a_flood_of_one_code_hides_no_other() -> None:
    """Each code has a bucket of its own."""
    flood: list[tuple[float, RequestError]] = [(0.0, Overloaded("full"))] * 10

    assert ("dim_mismatch", 0) == written([*flood, (0.0, DimMismatch("99 of 100"))])[-1]


def test_a_defect_is_always_written() -> None:
    """I5: whatever is our fault can be found under its request id."""
    assert [("internal_error", 0)] * 10 == written([(0.0, InternalError("oops"))] * 10)


def test_a_log_line_repeats_a_client_only_escaped() -> None:
    """An index name with line breaks stays on its line."""
    with capture_logs() as lines:
        FailureLog().write(Overloaded("full"), request_id="r", index="a\r\nlevel=error")

    assert "a\\r\\nlevel=error" == lines[0]["index"]
