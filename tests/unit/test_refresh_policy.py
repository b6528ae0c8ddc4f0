"""When a source is looked at, waited for and loaded: each test a sentence, a table and one action.

Times are seconds; settle is 0.25 and the poll comes 30 s after a look, unless a row says otherwise.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from kosine.errors import LoadCode
from kosine.loading.refresh_policy import (
    POLLED,
    TRANSIENT,
    Action,
    Failed,
    Kind,
    Seen,
    Situation,
    backoff,
    decide,
    see,
)
from kosine.loading.source import Fingerprint

NOW = 1000.0
POLL = NOW + 30.0
SETTLE = 0.25


def seen(token: str = "new", *, first: float = 0.0, last: float = 0.0, since: float = 0.0) -> Seen:  # noqa: S107
    """Times are before NOW."""
    return Seen(token=token, resolution=0.0, first=NOW - first, last=NOW - last, since=NOW - since)


def failed(code: LoadCode, token: str | None = "new", *, ago: float = 0.0, consecutive: int = 1) -> Failed:  # noqa: S107
    """A failure `ago` seconds before NOW."""
    return Failed(code=code, token=token, at=NOW - ago, consecutive=consecutive)


def situation(**changes: object) -> Situation:
    """A version loaded from `old` serves, and `new` has rested long enough."""
    usual = Situation(now=NOW, interval=30.0, settle=SETTLE, loaded="old", seen=seen(first=1.0, since=1.0))
    return replace(usual, **changes)  # type: ignore[arg-type]


RESTED = seen(first=1.0, since=1.0)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (situation(seen=seen("old")), Action(Kind.UNCHANGED, POLL)),
        (situation(seen=seen("old", first=99, since=99)), Action(Kind.UNCHANGED, POLL)),
        (situation(seen=RESTED), Action(Kind.LOAD)),
        (situation(loaded=None, seen=RESTED), Action(Kind.LOAD)),
        (situation(loaded=None, seen=seen()), Action(Kind.SETTLE, NOW + SETTLE)),
    ],
)
def test_what_serves_is_left_alone_and_what_is_new_is_loaded(what: Situation, expected: Action) -> None:
    """Equal fingerprint: nothing to do. Another one, or none loaded: load it once it rests."""
    assert expected == decide(what)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        # The first look at a fingerprint proves nothing, however old the file may be.
        (situation(seen=seen()), Action(Kind.SETTLE, NOW + SETTLE)),
        (situation(seen=seen(first=0.2)), Action(Kind.SETTLE, NOW + 0.05)),
        (situation(seen=seen(first=0.25)), Action(Kind.LOAD)),
        # What counts is the look itself, not the time since.
        (situation(seen=seen(first=0.3, last=0.2)), Action(Kind.SETTLE, NOW)),
        # Nobody can switch the racy window back on: the floor is 50 ms.
        (situation(settle=0.0, seen=seen()), Action(Kind.SETTLE, NOW + 0.05)),
        (situation(settle=0.0, seen=seen(first=0.05)), Action(Kind.LOAD)),
        # A store that stamps whole seconds needs more.
        (situation(seen=replace(seen(first=1.0), resolution=2.0)), Action(Kind.SETTLE, NOW + 1.0)),
        (situation(seen=replace(seen(first=2.0), resolution=2.0)), Action(Kind.LOAD)),
    ],
)
def test_a_load_needs_two_equal_fingerprints_a_settle_apart(what: Situation, expected: Action) -> None:
    """N11: the comparison before and after a read is sound only then."""
    assert expected == decide(what)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (situation(seen=seen(since=9.9)), Action(Kind.SETTLE, NOW + SETTLE)),
        (situation(seen=seen(since=10.0)), Action(Kind.SETTLE, NOW + 0.05)),
        (situation(seen=seen(first=0.05, since=10.0)), Action(Kind.LOAD)),
        (situation(seen=seen(since=14.9)), Action(Kind.SETTLE, NOW + 0.05)),
        (situation(seen=seen(first=0.05, since=15.0)), Action(Kind.LOAD)),
        (situation(seen=seen(since=15.0)), Action(Kind.GIVE_UP)),
    ],
)
def test_a_source_that_never_rests_gets_less_and_less(what: Situation, expected: Action) -> None:
    """N12: after 10 s the least settle does; after 15 s the attempt is given up."""
    assert expected == decide(what)


@pytest.mark.parametrize("code", sorted(set(LoadCode) - TRANSIENT - POLLED))
def test_a_bad_file_is_not_read_again(code: LoadCode) -> None:
    """What the same bytes cannot cure waits for other bytes: no retry, however long ago it was."""
    assert Action(Kind.WAIT, POLL) == decide(situation(failed=failed(code, ago=9999)))


@pytest.mark.parametrize("code", sorted(TRANSIENT))
def test_what_may_pass_is_retried_with_back_off(code: LoadCode) -> None:
    """The wait doubles with every failure in a row, up to a minute."""
    assert [
        Action(Kind.WAIT, NOW + 1.0),
        Action(Kind.WAIT, NOW + 3.0),
        Action(Kind.LOAD),
        Action(Kind.WAIT, POLL),
        Action(Kind.LOAD),
    ] == [
        decide(situation(failed=failed(code, ago=ago, consecutive=consecutive)))
        for ago, consecutive in ((0.0, 1), (1.0, 3), (4.0, 3), (0.0, 50), (60.0, 50))
    ]


@pytest.mark.parametrize("code", sorted(POLLED))
def test_what_somebody_must_put_right_is_retried_at_every_poll(code: LoadCode) -> None:
    """N13: missing and forbidden files are neither hammered nor forgotten."""
    assert [Action(Kind.WAIT, NOW + 20.0), Action(Kind.LOAD)] == [
        decide(situation(failed=failed(code, ago=ago))) for ago in (10.0, 30.0)
    ]


@pytest.mark.parametrize("code", sorted(LoadCode))
def test_other_bytes_are_loaded_whatever_failed_before(code: LoadCode) -> None:
    """The newest content wins at once."""
    assert Action(Kind.LOAD) == decide(situation(failed=failed(code, "another")))


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (situation(seen=None), Action(Kind.WAIT, POLL)),
        (situation(seen=None, failed=failed(LoadCode.SOURCE_MISSING, None)), Action(Kind.WAIT, POLL)),
        (situation(seen=None, failed=failed(LoadCode.BAD_URI, None)), Action(Kind.WAIT, POLL)),
        (
            situation(seen=None, failed=failed(LoadCode.SOURCE_UNREADABLE, None, consecutive=2)),
            Action(Kind.WAIT, NOW + 2.0),
        ),
        (
            situation(seen=None, failed=failed(LoadCode.TIMED_OUT, None, consecutive=40)),
            Action(Kind.WAIT, POLL),
        ),
    ],
)
def test_a_source_that_cannot_be_seen_is_looked_for_again(what: Situation, expected: Action) -> None:
    """At the poll, or sooner where the failure may pass."""
    assert expected == decide(what)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (situation(forced=True, seen=seen("old", first=9)), Action(Kind.LOAD)),
        (situation(forced=True, failed=failed(LoadCode.BAD_MAGIC)), Action(Kind.LOAD)),
        (situation(forced=True, failed=failed(LoadCode.WONT_FIT)), Action(Kind.LOAD)),
        (situation(forced=True, seen=seen()), Action(Kind.SETTLE, NOW + 0.05)),
        (situation(forced=True, seen=seen(first=0.05)), Action(Kind.LOAD)),
        (situation(forced=True, seen=seen(since=15.0)), Action(Kind.GIVE_UP)),
    ],
)
def test_a_forced_load_waits_for_nothing_but_safety(what: Situation, expected: Action) -> None:
    """Neither an equal fingerprint nor a failure holds it back; the racy window does."""
    assert expected == decide(what)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (situation(pinned=True), Action(Kind.HELD, POLL)),
        (situation(pinned=True, forced=True), Action(Kind.HELD, POLL)),
        (situation(pinned=True, failed=failed(LoadCode.WONT_FIT)), Action(Kind.HELD, POLL)),
        (situation(pinned=True, loaded=None), Action(Kind.HELD, POLL)),
        (situation(pinned=True, seen=seen("old", first=9)), Action(Kind.UNCHANGED, POLL)),
        (situation(pinned=True, seen=None), Action(Kind.WAIT, POLL)),
    ],
)
def test_a_pinned_index_looks_and_loads_nothing(what: Situation, expected: Action) -> None:
    """Whether the source holds what serves or something else is told, at the poll."""
    assert expected == decide(what)


def look(token: str, *, resolution: float = 0.0) -> Fingerprint:
    """What a look found."""
    return Fingerprint(token=token, size=1, resolution=resolution)


def test_looks_are_folded_into_how_long_a_fingerprint_has_stood() -> None:
    """From the end of the first look to the start of the latest: in between nothing can have happened."""
    first = see(None, look("a"), began=1.0, ended=1.2)
    second = see(first, look("a"), began=3.0, ended=3.2)

    assert Seen(token="a", resolution=0.0, first=1.2, last=1.2, since=1.2) == first  # noqa: S106
    assert Seen(token="a", resolution=0.0, first=1.2, last=3.0, since=1.2) == second  # noqa: S106


@pytest.mark.parametrize(
    ("rested", "since"), [(False, NOW - 7.0), (True, NOW)], ids=["it was settling", "it had rested"]
)
def test_a_run_of_changes_begins_after_a_rest(since: float, *, rested: bool) -> None:
    """Only changes that follow each other too fast to settle add up to a source that never rests."""
    before = replace(seen("a", first=2.0, last=1.0, since=7.0), rested=rested)

    assert since == see(before, look("b"), began=NOW, ended=NOW).since


def test_back_off_is_capped() -> None:
    """It doubles from one second to a minute, and no number of failures overflows it."""
    assert [1, 2, 4, 8, 16, 32, 60, 60] == [backoff(n) for n in (1, 2, 3, 4, 5, 6, 7, 10**9)]


def test_every_code_is_either_retried_polled_or_final() -> None:
    """A code belongs to one class, so a new one is decided about."""
    assert set() == TRANSIENT & POLLED
    assert {
        "bad_uri", "bad_magic", "bad_header", "unsupported_version", "dtype_not_allowed", "bad_shape",
        "empty_matrix", "size_mismatch", "dim_required", "dim_not_declared", "layout_mismatch",
        "layout_unproven", "not_finite", "zero_rows", "ids_invalid", "ids_length", "ids_duplicate",
        "mask_invalid", "mask_length",
        "dim_changed", "guard_failed", "self_check_failed", "not_a_file", "cancelled",
        "bad_manifest", "digest_mismatch", "missing_extra", "canary_failed",
    } == set(LoadCode) - TRANSIENT - POLLED  # fmt: skip
