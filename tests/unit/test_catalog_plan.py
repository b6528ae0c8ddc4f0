"""What another configuration means for a running service: a pure comparison, as tables."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kosine.loading.catalog import HOT, Changes, plan
from kosine.settings import (
    BatchSettings,
    CanarySettings,
    GuardSettings,
    IndexSettings,
    RefreshSettings,
    ServiceSettings,
    Settings,
)
from kosine.units import Duration, Size

OLD = IndexSettings(uri="items.npy")

HOT_CHANGES: list[dict[str, Any]] = [
    {"k": 3},
    {"masks": {"in_stock": "in_stock.npy"}},
    {"max_query_rows": 1},
    {"history": 3},
    {"timeout": Duration(1)},
    {"policy": "resource_preserving"},
    {"required": False},
    {"refresh": RefreshSettings(interval=Duration(5))},
    {"guard": GuardSettings(min_rows=1)},
    {"canary": CanarySettings(min_overlap_percent=50)},
    {"batch": BatchSettings(linger=Duration(0))},
    {"batch": BatchSettings(queue_rows=1)},
    {"batch": BatchSettings(queue_bytes=Size(1))},
]
RELOAD_CHANGES: list[dict[str, Any]] = [
    {"uri": "other.npy"},
    {"ids": "ids.npy"},
    {"layout": "columns"},
    {"dim": 4},
    {"metric": "dot"},
    {"max_k": 20},
    {"check_layout": False},
    {"invalid_rows": "drop"},
    {"credentials": "team-a"},
    {"batch": BatchSettings(max_rows=64)},
    {"k": 3, "uri": "other.npy"},
]


def to(**changes: Any) -> Changes:
    """From one index with default settings to the same with `changes`."""
    new = msgspec.structs.replace(OLD, **changes)
    return plan(Settings(indexes={"items": OLD}), Settings(indexes={"items": new}))


@pytest.mark.parametrize("changes", HOT_CHANGES, ids=str)
def test_settings_that_the_serving_version_can_take(changes: dict[str, Any]) -> None:
    """Hot: applied to what serves, nothing is read."""
    assert Changes(hot=("items",)) == to(**changes)


@pytest.mark.parametrize("changes", RELOAD_CHANGES, ids=str)
def test_settings_that_need_another_version(changes: dict[str, Any]) -> None:
    """Whatever decides how the file is read, and how large the engine is."""
    assert Changes(reload=("items",)) == to(**changes)


def test_every_setting_is_one_or_the_other() -> None:
    """A new setting cannot be forgotten here: each field appears in one of the tables above."""
    fields = {field.name for field in msgspec.structs.fields(IndexSettings)}

    assert fields == {name for changes in (*HOT_CHANGES, *RELOAD_CHANGES) for name in changes}
    assert HOT <= fields


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({}, {}, Changes()),
        ({"a": OLD}, {"a": OLD}, Changes()),
        ({}, {"b": OLD, "a": OLD}, Changes(added=("a", "b"))),
        ({"b": OLD, "a": OLD}, {}, Changes(removed=("a", "b"))),
        ({"a": OLD, "b": OLD}, {"b": OLD, "c": OLD}, Changes(added=("c",), removed=("a",))),
        # A renamed index is another one, even of the same file.
        ({"a": OLD}, {"b": OLD}, Changes(added=("b",), removed=("a",))),
    ],
)
def test_indexes_come_and_go(
    old: dict[str, IndexSettings], new: dict[str, IndexSettings], expected: Changes
) -> None:
    """By name, whatever else changes."""
    assert expected == plan(Settings(indexes=old), Settings(indexes=new))


def test_the_process_itself_needs_a_restart() -> None:
    """Settings of `service` are named, and change nothing else."""
    new = Settings(service=ServiceSettings(port=9, host="::1"), indexes={"a": OLD})

    assert Changes(restart_needed=("host", "port")) == plan(Settings(indexes={"a": OLD}), new)


def test_a_default_index_alone_changes_nothing_about_indexes() -> None:
    """Where POST /cos goes is read from the configuration in force."""
    indexes = {"a": OLD, "b": OLD}

    assert Changes() == plan(
        Settings(indexes=indexes, default_index="a"), Settings(indexes=indexes, default_index="b")
    )
