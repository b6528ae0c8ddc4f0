"""Which pods serve which indexes: alone, together, on the move, and not at all."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from kosine_operator.pools import (
    HANDOVER,
    PoolKey,
    Reason,
    acceptance,
    members,
    pool,
    pool_of,
    pools_of,
)
from kosine_operator.render import Live
from tests.kit.operator_pools import NOW, a_server, an_index, manifest, pool_for, rendered

DEDICATED = PoolKey("search", "CosineIndex", "items")
SHARED = PoolKey("search", "CosineServer", "shared")
TO_SHARED = {"serverRef": {"name": "shared"}}
ON_DEDICATED = {"serving": {"kind": "CosineIndex", "name": "items"}}
ON_SHARED = {"serving": {"kind": "CosineServer", "name": "shared"}}


def handed_over(at: datetime) -> dict[str, Any]:
    """The status of an index that left its own pods for the server at that time."""
    until = (at + HANDOVER).isoformat()
    return {**ON_SHARED, "previous": {"kind": "CosineIndex", "name": "items", "until": until}}


def test_an_index_has_pods_of_its_own() -> None:
    """Without a server it owns its pool; its name and kind make the label."""
    index = an_index("items")
    found = pool_for(index)
    assert (DEDICATED, "cosineindex.items") == (found.key, found.key.label)
    assert ("CosineIndex", "items", index.metadata.uid) == (
        found.owner.kind,
        found.owner.name,
        found.owner.uid,
    )
    assert acceptance(index, found).accepted


def test_indexes_of_one_server_share_its_pods() -> None:
    """By name, and only those that name it."""
    b, a, other = an_index("b", TO_SHARED), an_index("a", TO_SHARED), an_index("other")
    found = pool_for(a, a_server(), others=[b, other])
    assert ((a, b), (a, b)) == (found.indexes, members(SHARED, [b, other, a]))
    assert ("CosineServer", "shared") == (found.owner.kind, found.owner.name)


def test_an_index_whose_server_is_missing_is_not_accepted() -> None:
    """It says which; nothing is made up in its place."""
    index = an_index("items", TO_SHARED)
    assert None is pool(pool_of(index), [index], [], now=NOW)
    said = acceptance(index, None)
    assert (False, "ServerNotFound", True) == (said.accepted, said.reason, "shared" in said.message)


@pytest.mark.parametrize("gone", [{"deletionTimestamp": "2026-01-01T00:00:00Z"}, None])
def test_a_pool_without_its_owner_is_none(gone: dict[str, Any] | None) -> None:
    """Deleted, or being deleted: its objects are garbage."""
    indexes = [] if gone is None else [an_index("items", **gone)]
    servers = [] if gone is None else [a_server(**gone)]
    assert (None, None) == tuple(pool(key, indexes, servers, now=NOW) for key in (DEDICATED, SHARED))


MOVE = [
    pytest.param({}, {}, None, {SHARED}, id="new, never served elsewhere"),
    pytest.param(ON_DEDICATED, {}, DEDICATED, {DEDICATED, SHARED}, id="asked for, not loaded there yet"),
    pytest.param(handed_over(NOW), {}, SHARED, {DEDICATED, SHARED}, id="its Service was turned just now"),
    pytest.param(handed_over(NOW - HANDOVER), {}, SHARED, {SHARED}, id="the handover is over"),
    pytest.param(ON_DEDICATED, {"paused": True}, DEDICATED, {DEDICATED}, id="paused: it does not move"),
    pytest.param(ON_SHARED, {}, SHARED, {SHARED}, id="arrived"),
]


@pytest.mark.parametrize(("status", "spec", "service", "serving"), MOVE)
def test_an_index_moves_without_a_gap(
    status: dict[str, Any], spec: dict[str, Any], service: PoolKey | None, serving: set[PoolKey]
) -> None:
    """Loaded on the new pods first, then its Service is turned, then the old pods drop it."""
    index = an_index("items", {**TO_SHARED, **spec}, status=status)
    found = {key: pool(key, [index], [a_server()], now=NOW) for key in (DEDICATED, SHARED)}
    holding = {key for key, each in found.items() if each is not None and index in each.indexes}
    assert serving == holding
    leads_to = {
        key
        for key, each in found.items()
        if each is not None and not each.paused
        for service_of in rendered(each).manifests
        if service_of["kind"] == "Service" and service_of["metadata"]["name"] == "items"
    }
    assert ({SHARED} if service in {None, SHARED} else set()) == leads_to


def test_moving_away_changes_nothing_of_the_pods_it_leaves() -> None:
    """What they were made of is no longer in the spec, so they stay as they are until they go."""
    index = an_index("items", TO_SHARED, status=ON_DEDICATED)
    left = pool(DEDICATED, [index], [a_server()], now=NOW)
    assert left is not None
    assert left.paused


def test_a_move_back_before_it_is_loaded_leaves_everything_where_it_was() -> None:
    """The other pool drops it at once: nobody was sent there."""
    index = an_index("items", status=ON_DEDICATED)
    other = pool(SHARED, [index], [a_server()], now=NOW)
    assert other is not None
    assert () == other.indexes
    assert pool_for(index).indexes == (index,)


def test_a_handover_does_not_end_before_it_began() -> None:
    """Until the Service was seen to lead elsewhere the old pool keeps the index, for hours if need be."""
    status = {**ON_SHARED, "previous": {"kind": "CosineIndex", "name": "items"}}
    index = an_index("items", TO_SHARED, status=status)
    left = pool(DEDICATED, [index], [a_server()], now=NOW + timedelta(hours=1))
    assert left is not None
    assert ((index,), None) == (left.indexes, left.revisit_at)


def test_the_end_of_a_handover_is_known() -> None:
    """No event says so; both pools tell when to look again, and a change of it concerns both."""
    index = an_index("items", TO_SHARED, status=handed_over(NOW - timedelta(seconds=3)))
    ends = {
        found.revisit_at
        for key in (DEDICATED, SHARED)
        if (found := pool(key, [index], [a_server()], now=NOW))
    }
    assert {NOW + HANDOVER - timedelta(seconds=3)} == ends
    assert frozenset({DEDICATED, SHARED}) == pools_of(index)


@pytest.mark.parametrize(
    ("memory", "status", "refused"),
    [
        pytest.param(["4Gi", "4Gi", "4Gi"], [{}, {}, {}], {"c"}, id="the newest does not fit"),
        pytest.param(["4Gi", "8Gi", "4Gi"], [{}, {}, {}], {"b"}, id="a smaller one may still fit"),
        pytest.param(["9Gi", "1Gi", "1Gi"], [ON_SHARED, {}, {}], {"b", "c"}, id="what is served stays"),
        pytest.param(["4Gi", "4Gi", "4Gi"], [{}, {}, ON_SHARED], {"b"}, id="before what is older"),
        pytest.param([None, "8Gi", None], [{}, {}, {}], set(), id="only what says its memory counts"),
    ],
)
def test_memory_of_a_server_is_given_once(
    memory: list[str | None], status: list[dict[str, Any]], refused: set[str]
) -> None:
    """An index that does not fit is refused with the numbers; one that serves is never put out."""
    every = [
        an_index(
            name,
            {**TO_SHARED, **({"memory": each} if each else {})},
            status=told,
            creationTimestamp=f"2026-01-0{day}T00:00:00Z",
        )
        for day, (name, each, told) in enumerate(zip("abc", memory, status, strict=True), start=1)
    ]
    found = pool_for(every[0], a_server("shared", {"indexMemoryLimit": "8Gi"}), others=every[1:])
    assert refused == {each.index for each in found.refusals}
    assert {index.metadata.name for index in found.indexes} == set("abc") - refused
    for index in every:
        assert acceptance(index, found).accepted == (index.metadata.name not in refused)


@pytest.mark.parametrize(("index_day", "server_day", "index_wins"), [(1, 2, True), (2, 1, False)])
def test_one_name_one_service(index_day: int, server_day: int, index_wins: bool) -> None:
    """An index and a server of one name: the older one has it, the other is told."""
    index = an_index("shared", creationTimestamp=f"2026-01-0{index_day}T00:00:00Z")
    server = a_server("shared", creationTimestamp=f"2026-01-0{server_day}T00:00:00Z")
    dedicated, shared = pool_for(index, server), pool(SHARED, [index], [server], now=NOW)
    assert shared is not None
    assert index_wins == acceptance(index, dedicated).accepted
    assert index_wins == (Reason.NAME_CONFLICT in {each.reason for each in shared.refusals if not each.index})


def test_a_paused_server_is_a_paused_pool() -> None:
    """Of either kind."""
    assert pool_for(an_index("items", {"paused": True})).paused
    assert pool_for(an_index("items", TO_SHARED), a_server("shared", {"paused": True})).paused


def test_a_leaving_index_is_still_in_the_file_of_the_server_it_leaves() -> None:
    """Until its new pods answer."""
    index = an_index("items", status=ON_SHARED)
    left = pool(SHARED, [index], [a_server()], now=NOW)
    assert left is not None
    text = manifest(rendered(left, live=Live()), "ConfigMap")["data"]["kosine.yaml"]
    assert "s3://bucket/items.npy" in text
