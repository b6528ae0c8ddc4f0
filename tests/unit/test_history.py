"""Which versions are remembered, which one a rollback goes back to, and what survives being written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosine.errors import LoadCode, LoadError, Stage, UnknownVersion, VersionGone
from kosine.loading.history import (
    History,
    Served,
    check_decoding,
    check_earlier,
    choose,
    confirmed,
    kept,
    serves,
)
from kosine.serving.status import Pin
from kosine.settings import IndexSettings
from tests.kit.loads import version_files

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def entry(version: str, hour: int = 0) -> Served:
    """A version that was published at that hour."""
    return Served(
        version=version,
        digest=f"{version} whole",
        fingerprint=f"file of {version}",
        rows=4,
        dim=4,
        layout="rows",
        metric="cosine",
        cause="source",
        published_at=BEGIN + timedelta(hours=hour),
        files=version_files(f"file of {version}"),
    )


def history_of(published: str, *, keep: int) -> History:
    """After these versions, a letter each, were published an hour after another."""
    history = History()
    for hour, version in enumerate(published):
        history = serves(history, entry(version, hour), keep=keep)
    return history


def names(history: History) -> str:
    return "".join(each.version for each in history.versions)


@pytest.mark.parametrize(
    ("published", "keep", "expected"),
    [
        ("", 2, ""),
        ("a", 2, "a"),
        ("ab", 2, "ba"),
        ("abcd", 2, "dcb"),
        ("abcd", 0, "d"),
        ("abb", 2, "ba"),
        ("aba", 1, "ab"),
        ("abab", 1, "ba"),
        ("abca", 2, "acb"),
    ],
)
def test_versions_are_ordered_by_when_they_last_served(published: str, keep: int, expected: str) -> None:
    """Each is there once, newest first, and no more than are to be kept."""
    assert expected == names(history_of(published, keep=keep))


@given(st.text("abcdefg", min_size=1, max_size=30), st.integers(0, 32))
def test_the_history_is_bounded_and_its_head_serves(published: str, keep: int) -> None:
    """Whatever is published: at most `keep` and one, none twice, all but the head retired."""
    versions = history_of(published, keep=keep).versions
    assert len(versions) <= keep + 1
    assert published[-1] == versions[0].version
    assert len({each.digest for each in versions}) == len(versions)
    assert [None] == [each.retired_at for each in versions if each.retired_at is None]


def test_a_version_is_retired_when_the_next_is_published() -> None:
    """And not before."""
    newest, before = history_of("ab", keep=1).versions
    assert newest.retired_at is None
    assert newest.published_at == before.retired_at


def test_the_same_content_again_goes_on_serving() -> None:
    """After a restart, or with other settings, it has served since it was first published."""
    again = serves(history_of("ab", keep=1), entry("b", 9), keep=1)
    assert BEGIN + timedelta(hours=1) == again.versions[0].published_at
    assert "ba" == names(again)


def test_files_that_hold_the_same_content_are_known() -> None:
    """A touched file has another fingerprint: it is where the bytes are now."""
    history = confirmed(history_of("ab", keep=1), fingerprint="touched", files=version_files("touched"))
    assert ["touched", "file of a"] == [each.fingerprint for each in history.versions]
    assert ["touched", "file of a"] == [each.files.vectors.token for each in history.versions]
    assert History() == confirmed(History(), fingerprint="touched", files=version_files("touched"))


@pytest.mark.parametrize(
    ("published", "asked", "expected"),
    [
        ("ab", None, "a"),
        ("abc", None, "b"),
        ("aba", None, "b"),
        ("abc", "a", "a"),
        ("abc", "c", "c"),
        ("abc", "b whole", "b"),
        ("", None, None),
        ("a", None, None),
        ("abc", "d", None),
        ("abc", "", None),
    ],
)
def test_a_rollback_is_to_the_version_asked_or_the_one_before(
    published: str, asked: str | None, expected: str | None
) -> None:
    """By its name or its digest; anything else is refused, with what there is."""
    history = history_of(published, keep=2)
    if expected is not None:
        assert expected == choose(history, asked, keep=2).version
        return
    with pytest.raises(UnknownVersion, match="history: 2") as refused:
        choose(history, asked, keep=2)
    assert list(published[::-1]) == refused.value.facts["known"]


@pytest.mark.parametrize(("layout", "metric"), [("columns", "cosine"), ("rows", "dot")])
def test_other_decodings_make_other_versions(layout: str, metric: str) -> None:
    """The refusal names what to set, and the version that serves."""
    settings = msgspec.convert({"uri": "items.npy", "layout": layout, "metric": metric}, IndexSettings)
    with pytest.raises(VersionGone, match="layout rows and metric cosine") as refused:
        check_decoding(entry("a"), settings, serving="b")
    assert {"asked": "a", "version": "b"} == refused.value.facts
    check_decoding(entry("a"), IndexSettings(uri="elsewhere.npy"), serving="b")


def test_another_digest_is_another_version() -> None:
    """What was read is proven by what it makes."""
    check_earlier(entry("a"), "a whole")
    with pytest.raises(LoadError) as refused:
        check_earlier(entry("a"), "b whole")
    assert (LoadCode.DIGEST_MISMATCH, Stage.CHECK) == (refused.value.code, refused.value.stage)


def test_a_pin_holds_the_version_that_serves() -> None:
    """Nothing that is pinned ever falls out of the history."""
    history = history_of("abc", keep=2)
    assert history.pinned is None
    held = msgspec.structs.replace(history, pin=Pin(version="c", at=BEGIN))
    assert "c" == (kept(held, keep=0).pinned or entry("none")).version


def test_what_is_remembered_is_what_was_known() -> None:
    """As JSON, with pin, times and files."""
    history = msgspec.structs.replace(history_of("abc", keep=2), pin=Pin(version="c", at=BEGIN))
    assert history == msgspec.json.decode(msgspec.json.encode(history), type=History)
