"""Conditions as tables: what is seen of a pool, and what is said of it."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosine_operator.pools import HANDOVER, Acceptance, Pool, acceptance, pool
from kosine_operator.render import Capabilities, Rendered
from kosine_operator.resources import CosineIndex, parse_index
from kosine_operator.status import (
    REASONS,
    ApplyFailure,
    ConditionType,
    IndexReport,
    LoadFailure,
    Observed,
    PodReport,
    Rollout,
    index_status,
    invalid_status,
    rollout_of,
    server_status,
    transitions,
)
from tests.kit.operator_pools import NOW, a_server, an_index, pool_for, rendered

INDEX = an_index("items", {"server": {"replicas": 2}})
POOL = pool_for(INDEX)
RENDERED = rendered(POOL)
HASH = RENDERED.configuration_hash
EARLIER, LATER = NOW - dt.timedelta(hours=1), NOW + dt.timedelta(hours=1)

GOOD = IndexReport(state="available", version="v1", rows=3, dim=2, bytes=24, loaded_at=EARLIER)
LOADING = IndexReport(state="loading")
MISSING = LoadFailure(code="source_missing", detail="expected an object, got none", at=EARLIER)
STALE = replace(GOOD, last_error=MISSING)
FAILED = IndexReport(state="failed", last_error=MISSING)
OUTDATED = replace(GOOD, outdated=True)
ALL_UP = Rollout(observed=True, desired=2, replicas=2, updated=2, ready=2, available=2)


def a_pod(name: str = "a", report: IndexReport | None = GOOD, **fields: Any) -> PodReport:
    given = {"ready": True, "configuration_hash": HASH, **fields}
    return PodReport(pod=name, indexes={"items": report} if report else {}, **given)


def seen(*pods: PodReport, rollout: Rollout = ALL_UP, **fields: Any) -> Observed:
    return Observed(**{"now": NOW, "rollout": rollout, "pods": pods, **fields})


SETTLED = seen(a_pod("a"), a_pod("b"))
TRUE_OF_ALL = {
    "Accepted": "True/Accepted",
    "Available": "True/Serving",
    "Loaded": "True/Loaded",
    "Progressing": "False/Settled",
    "Degraded": "False/AsExpected",
    "Ready": "True/Ready",
}


def status_of(
    observed: Observed,
    *,
    index: CosineIndex = INDEX,
    found: Pool | None = POOL,
    accepted: Acceptance | None = None,
    made: Rendered | None = RENDERED,
    previous: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return index_status(
        index,
        pool=found,
        acceptance=accepted or acceptance(index, found),
        rendered=made,
        observed=observed,
        previous=previous,
    )


def told(status: dict[str, Any]) -> dict[str, str]:
    return {each["type"]: f"{each['status']}/{each['reason']}" for each in status["conditions"]}


NO_PODS = {"Available": "False/NoReadyPods", "Loaded": "False/NoReadyPods", "Ready": "False/NoReadyPods"}
TABLE = [
    pytest.param(SETTLED, {}, id="all is well"),
    pytest.param(
        seen(rollout=Rollout(observed=True, desired=2)),
        {**NO_PODS, "Progressing": "True/Rollout"},
        id="just created",
    ),
    pytest.param(
        seen(a_pod(report=LOADING, ready=False), rollout=replace(ALL_UP, ready=0)),
        {**NO_PODS, "Progressing": "True/Rollout"},
        id="started and loading",
    ),
    pytest.param(
        seen(a_pod(report=FAILED, ready=False), rollout=replace(ALL_UP, ready=0)),
        {
            "Available": "False/NoReadyPods",
            "Loaded": "False/SourceNotFound",
            "Progressing": "True/Rollout",
            "Degraded": "True/SourceNotFound",
            "Ready": "False/SourceNotFound",
        },
        id="the first load fails",
    ),
    pytest.param(
        seen(a_pod("a"), a_pod("b", STALE)),
        {"Degraded": "True/ServingStaleVersion"},
        id="a bad file: the old version serves, and all of this generation is still in force",
    ),
    pytest.param(
        seen(a_pod("a"), a_pod("b", configuration_hash="old")),
        {
            "Loaded": "False/ConfigurationPending",
            "Progressing": "True/HotReload",
            "Ready": "False/ConfigurationPending",
        },
        id="one pod has not seen the configuration",
    ),
    pytest.param(
        seen(a_pod("a"), a_pod("b", configuration_hash=None, report=None, error="connection refused")),
        {
            "Loaded": "False/PodsUnreachable",
            "Degraded": "True/PodsUnreachable",
            "Ready": "False/PodsUnreachable",
        },
        id="one pod does not answer",
    ),
    pytest.param(
        seen(a_pod("a"), a_pod("b", configuration_hash="old", refused="line 1: not YAML")),
        {
            "Loaded": "False/ConfigurationPending",
            "Progressing": "True/HotReload",
            "Degraded": "True/ConfigurationRefused",
            "Ready": "False/ConfigurationPending",
        },
        id="one pod refuses the configuration",
    ),
    pytest.param(
        seen(a_pod("a"), a_pod("b", OUTDATED)),
        {"Loaded": "False/Loading", "Progressing": "True/Loading", "Ready": "False/Loading"},
        id="configured, and not loaded under it yet",
    ),
    pytest.param(
        seen(a_pod("a"), a_pod("b", replace(OUTDATED, last_error=MISSING))),
        {
            "Loaded": "False/SourceNotFound",
            "Degraded": "True/ServingStaleVersion",
            "Ready": "False/SourceNotFound",
        },
        id="the source it was changed to is missing: the old one answers, this generation is not in force",
    ),
    pytest.param(
        seen(a_pod("a"), a_pod("b"), rollout=replace(ALL_UP, updated=1, replicas=3)),
        {"Progressing": "True/Rollout", "Ready": "False/Rollout"},
        id="pods are being replaced",
    ),
    pytest.param(
        seen(a_pod("a"), a_pod("b"), rollout=replace(ALL_UP, observed=False)),
        {"Progressing": "True/Rollout", "Ready": "False/Rollout"},
        id="the Deployment's status is about an older spec",
    ),
    pytest.param(
        seen(a_pod("a"), rollout=replace(ALL_UP, ready=1, stuck="ProgressDeadlineExceeded: too long")),
        {"Progressing": "False/RolloutStuck", "Degraded": "True/RolloutStuck", "Ready": "False/Rollout"},
        id="the rollout is stuck",
    ),
    pytest.param(
        seen(
            a_pod("a"),
            a_pod("b", None, ready=False, waiting="ImagePullBackOff: no such image"),
            rollout=replace(ALL_UP, ready=1),
        ),
        {"Progressing": "True/Rollout", "Degraded": "True/PodsFailing", "Ready": "False/Rollout"},
        id="a pod cannot start",
    ),
    pytest.param(
        seen(rollout=Rollout(observed=True)),
        {**NO_PODS, "Ready": "False/ScaledToZero"},
        id="scaled to zero",
    ),
    pytest.param(
        replace(SETTLED, failure=ApplyFailure(reason="Rejected", message="exceeded quota")),
        {"Accepted": "False/Rejected", "Progressing": "False/NotAccepted", "Ready": "False/Rejected"},
        id="the API server does not take what is rendered; what runs, runs on",
    ),
]


@pytest.mark.parametrize(("observed", "differs"), TABLE)
def test_conditions_of_an_index(observed: Observed, differs: dict[str, str]) -> None:
    """What differs from a settled index, and nothing else does."""
    assert {**TRUE_OF_ALL, **differs} == told(status_of(observed))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("source_missing", "SourceNotFound"),
        ("source_forbidden", "AccessDenied"),
        ("dim_changed", "ShapeMismatch"),
        ("guard_failed", "GuardFailed"),
        ("wont_fit", "InsufficientMemory"),
        ("timed_out", "LoadTimedOut"),
        ("bad_magic", "LoadFailed"),
        ("a_code_of_a_newer_service", "LoadFailed"),
    ],
)
def test_a_load_code_is_a_reason(code: str, reason: str) -> None:
    """Whoever waits for an index sees why it does not load."""
    failure = LoadFailure(code=code, detail="...", at=EARLIER)
    report = replace(FAILED, last_error=failure)
    assert f"False/{reason}" == told(status_of(seen(a_pod(report=report, ready=False))))["Loaded"]


def test_what_is_counted() -> None:
    """Pods, versions and the last failure, with the pod it happened on."""
    newer = replace(GOOD, version="v2", rows=4, loaded_at=NOW)
    status = status_of(seen(a_pod("a", newer), a_pod("b", STALE), a_pod("c", LOADING)))
    assert (3, 2, "2/2") == (status["readyReplicas"], status["loadedReplicas"], status["loadedPods"])
    assert {"version": "v2", "rows": 4, "dim": 2, "bytes": 24, "time": "2026-01-02T03:04:05Z"} == status[
        "loaded"
    ]
    failure = {"reason": "source_missing", "pod": "b", "time": "2026-01-02T02:04:05Z"}
    assert failure.items() <= status["lastFailure"].items()
    assert "http://items.search.svc/indexes/items/cos" == status["url"]
    assert "kosine.dev/pool=cosineindex.items" == status["selector"]
    assert {"kind": "CosineIndex", "name": "items"} == status["serving"]


def test_nothing_new_is_nothing_to_write() -> None:
    """Seen again later, also with the same failure repeated: the same status."""
    once = status_of(seen(a_pod("a"), a_pod("b", STALE)))
    again = replace(STALE, last_error=replace(MISSING, at=LATER))
    assert once == status_of(seen(a_pod("a"), a_pod("b", again), now=LATER), previous=once)


def test_a_condition_keeps_its_time_with_its_status() -> None:
    """A new reason or message is none; a new status is."""
    before = status_of(seen(rollout=Rollout(observed=True, desired=2)))
    waiting = seen(a_pod("a", LOADING, ready=False), rollout=replace(ALL_UP, ready=0), now=LATER)
    times = {
        each["type"]: each["lastTransitionTime"] for each in status_of(waiting, previous=before)["conditions"]
    }
    assert {"2026-01-02T03:04:05Z"} == {*times.values()}
    after = status_of(replace(SETTLED, now=LATER), previous=before)
    moved = {
        each["type"] for each in after["conditions"] if each["lastTransitionTime"] == "2026-01-02T04:04:05Z"
    }
    assert {"Available", "Loaded", "Progressing", "Ready"} == moved


SHARED_REF = {"serverRef": {"name": "shared"}}


def test_another_index_of_the_pool_does_not_unready_this_one() -> None:
    """Once a generation was confirmed, a configuration that changes for others says nothing new about it."""
    index = an_index("items", SHARED_REF)
    found = pool_for(index, a_server())
    ready = status_of(SETTLED, index=index, found=found, made=replace(RENDERED, configuration_hash=HASH))
    assert "True/Ready" == told(ready)["Ready"]
    others = replace(RENDERED, configuration_hash="of the next configuration")
    assert ready == status_of(SETTLED, index=index, found=found, made=others, previous=ready)
    changed = an_index("items", SHARED_REF, generation=2)
    pending = status_of(SETTLED, index=changed, found=found, made=others, previous=ready)
    assert "False/ConfigurationPending" == told(pending)["Ready"]


def moving(status: dict[str, Any] | None = None) -> tuple[CosineIndex, Pool]:
    index = an_index(
        "items",
        SHARED_REF,
        status=status or {"serving": {"kind": "CosineIndex", "name": "items"}},
        generation=2,
    )
    found = pool_for(index, a_server())
    return index, found


def test_a_move_is_finished_when_all_new_pods_have_loaded_it() -> None:
    """Then its Service is turned, however late; from there on the old pods keep it for the handover."""
    index, found = moving()
    before = status_of(SETTLED)
    still = status_of(seen(a_pod("a"), a_pod("b", LOADING)), index=index, found=found, previous=before)
    assert ("CosineIndex", "True/Serving", "True/Moving", "False/Loading") == (
        still["serving"]["kind"],
        told(still)["Available"],
        told(still)["Progressing"],
        told(still)["Ready"],
    )
    assert "previous" not in still
    turned = status_of(SETTLED, index=index, found=found, previous=still)
    assert {"kind": "CosineServer", "name": "shared"} == turned["serving"]
    assert {"kind": "CosineIndex", "name": "items"} == turned["previous"]
    assert "False/Moving" == told(turned)["Ready"]

    index, found = moving({**turned, "conditions": []})
    late = replace(SETTLED, now=NOW + 9 * HANDOVER)
    assert turned["previous"] == status_of(late, index=index, found=found, previous=turned)["previous"]
    led = replace(SETTLED, led_here=frozenset({"items"}))
    done = status_of(led, index=index, found=found, previous=turned)
    until = (NOW + HANDOVER).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert ({**turned["previous"], "until": until}, "True/Ready") == (done["previous"], told(done)["Ready"])

    index, found = moving({**done, "conditions": []})
    over = status_of(replace(led, now=NOW + HANDOVER), index=index, found=found, previous=done)
    assert "previous" not in over


def test_an_index_without_its_server_says_so_and_serves_on_where_it_was() -> None:
    """Named one that does not exist: its old pods answer, and nothing is turned."""
    index = an_index("items", SHARED_REF, status={"serving": {"kind": "CosineIndex", "name": "items"}})
    assert None is pool(POOL.key.__class__("search", "CosineServer", "shared"), [index], [], now=NOW)
    status = status_of(Observed(now=NOW), index=index, found=None, made=None, previous=status_of(SETTLED))
    assert {"kind": "CosineIndex", "name": "items"} == status["serving"]
    assert ("False/ServerNotFound", "True/Serving", "False/ServerNotFound") == tuple(
        told(status)[kind] for kind in ("Accepted", "Available", "Ready")
    )


def test_a_paused_index_says_so() -> None:
    """What it is, it stays; a spec that was changed meanwhile is not in force."""
    index = an_index("items", {"paused": True})
    found = pool_for(index)
    assert "False/Paused" == told(status_of(SETTLED, index=index, found=found))["Progressing"]
    pods = seen(a_pod("a", configuration_hash="old"), a_pod("b", configuration_hash="old"))
    assert "False/ConfigurationPending" == told(status_of(pods, index=index, found=found))["Ready"]


def test_pods_that_cannot_be_asked_are_not_said_to_be_empty() -> None:
    """An operator without a way to the pods says so; whether they answer is as it was."""
    before = status_of(SETTLED)
    silent = [a_pod(name, None, configuration_hash=None, error="timed out") for name in "ab"]
    status = status_of(seen(*silent), previous=before)
    assert (before["loaded"], "True/Serving") == (status["loaded"], told(status)["Available"])
    assert ("True/PodsUnreachable", "False/PodsUnreachable") == (
        told(status)["Degraded"],
        told(status)["Loaded"],
    )


def test_what_is_asked_for_and_not_installed_is_degraded() -> None:
    """Everything else stands, so it is accepted and ready."""
    index = an_index("items", {"server": {"monitoring": {"serviceMonitor": {}}}})
    found = pool_for(index)
    made = rendered(found, capabilities=Capabilities())
    pods = seen(
        a_pod("a", configuration_hash=made.configuration_hash),
        rollout=Rollout(observed=True, desired=1, replicas=1, updated=1, ready=1, available=1),
    )
    status = told(status_of(pods, index=index, found=found, made=made))
    assert {**TRUE_OF_ALL, "Degraded": "True/CRDNotInstalled"} == status


SERVER = a_server("shared", {"replicas": 2})
MEMBER = an_index("items", SHARED_REF)
SERVER_POOL = pool_for(MEMBER, SERVER)
SERVER_TABLE = [
    pytest.param(SETTLED, {}, id="all is well"),
    pytest.param(
        seen(a_pod("a"), a_pod("b", FAILED)),
        {"Loaded": "False/Loading", "Degraded": "True/IndexesDegraded"},
        id="a broken index does not unready the server of the others",
    ),
    pytest.param(
        seen(a_pod("a"), a_pod("b", configuration_hash="old")),
        {"Progressing": "True/HotReload", "Ready": "False/ConfigurationPending"},
        id="one pod has not seen the configuration",
    ),
    pytest.param(
        seen(rollout=Rollout(observed=True, desired=2)),
        {**NO_PODS, "Progressing": "True/Rollout"},
        id="just created",
    ),
    pytest.param(
        seen(a_pod("a"), rollout=replace(ALL_UP, updated=1)),
        {"Progressing": "True/Rollout", "Ready": "False/Rollout"},
        id="pods are being replaced",
    ),
    pytest.param(
        seen(rollout=Rollout(observed=True)), {**NO_PODS, "Ready": "False/ScaledToZero"}, id="scaled to zero"
    ),
]


@pytest.mark.parametrize(("observed", "differs"), SERVER_TABLE)
def test_conditions_of_a_server(observed: Observed, differs: dict[str, str]) -> None:
    """What differs from a settled server, and nothing else does."""
    status = server_status(SERVER, pool=SERVER_POOL, rendered=RENDERED, observed=observed, previous=None)
    assert {**TRUE_OF_ALL, **differs} == told(status)
    assert status == server_status(
        SERVER, pool=SERVER_POOL, rendered=RENDERED, observed=replace(observed, now=LATER), previous=status
    )


def test_a_server_without_indexes_is_ready() -> None:
    """It waits for them, as asked for."""
    found = pool(SERVER_POOL.key, [], [SERVER], now=NOW)
    assert found is not None
    status = server_status(SERVER, pool=found, rendered=RENDERED, observed=SETTLED, previous=None)
    assert (0, "0/0", "True/NoIndexes", "True/Ready") == (
        status["indexes"],
        status["loadedIndexes"],
        told(status)["Loaded"],
        told(status)["Ready"],
    )


def test_a_resource_that_cannot_be_read_keeps_what_is_known() -> None:
    """Its pods run on; it is not accepted and not ready."""
    before = status_of(SETTLED)
    status = invalid_status(before, generation=2, reason="spec.k: expected an integer", now=LATER)
    invalid = {"Accepted": "False/InvalidSpec", "Ready": "False/InvalidSpec"}
    assert {**TRUE_OF_ALL, **invalid} == told(status)
    assert [*TRUE_OF_ALL] == [each["type"] for each in status["conditions"]]
    assert before["loaded"] == status["loaded"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param(None, Rollout(), id="there is none"),
        pytest.param({}, Rollout(desired=3), id="nobody has looked at it"),
        pytest.param(
            {
                "observedGeneration": 2,
                "replicas": 3,
                "updatedReplicas": 3,
                "readyReplicas": 2,
                "availableReplicas": 1,
            },
            Rollout(observed=True, desired=3, replicas=3, updated=3, ready=2, available=1),
            id="counts",
        ),
        pytest.param({"observedGeneration": 1}, Rollout(desired=3), id="about an older spec"),
        pytest.param(
            {"conditions": [{"type": "Progressing", "status": "False", "reason": "R", "message": "m"}]},
            Rollout(desired=3, stuck="R: m"),
            id="past its deadline",
        ),
        pytest.param(
            {"conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "R", "message": "m"}]},
            Rollout(desired=3, stuck="R: m"),
            id="pods cannot be created",
        ),
    ],
)
def test_the_counts_of_a_deployment(status: dict[str, Any] | None, expected: Rollout) -> None:
    """As its controller writes them; a status of an older generation is not believed."""
    deployment = {"metadata": {"generation": 2}, "spec": {"replicas": 3}, "status": status}
    assert expected == rollout_of(None if status is None else deployment)


def test_only_what_changed_is_told() -> None:
    """An Event when a condition has another status or reason; none for a message or a calm beginning."""
    created = status_of(seen(rollout=Rollout(observed=True, desired=2)))
    settled = status_of(SETTLED, previous=created)
    broken = status_of(seen(a_pod("a"), a_pod("b", STALE)), previous=settled)
    assert ["Accepted", "Progressing"] == [each.type for each in transitions(None, created)]
    assert {"Available", "Loaded", "Progressing", "Ready"} == {
        each.type for each in transitions(created, settled)
    }
    (only,) = transitions(settled, broken)
    assert ("Degraded", "ServingStaleVersion", True) == (only.type, only.reason, only.warning)
    assert () == transitions(broken, broken)


reports = st.one_of(
    st.none(),
    st.builds(
        IndexReport,
        state=st.sampled_from(["loading", "available", "failed", "unloading"]),
        version=st.just("v"),
        rows=st.just(1),
        dim=st.just(1),
        bytes=st.just(4),
        loaded_at=st.one_of(st.none(), st.just(EARLIER)),
        outdated=st.booleans(),
        last_error=st.one_of(st.none(), st.just(MISSING)),
    ),
)


@st.composite
def observations(draw: st.DrawFn) -> Observed:
    """Anything that could be seen of a pool."""
    count = st.integers(0, 3)
    pods = [
        PodReport(
            pod=f"pod-{number}",
            ready=draw(st.booleans()),
            configuration_hash=draw(st.sampled_from([None, HASH, "old"])),
            refused=draw(st.sampled_from([None, "line 1"])),
            error=draw(st.sampled_from([None, "refused"])),
            waiting=draw(st.sampled_from([None, "CrashLoopBackOff: exit 2"])),
            indexes={} if (report := draw(reports)) is None else {"items": report},
        )
        for number in range(draw(count))
    ]
    rollout = Rollout(
        observed=draw(st.booleans()),
        desired=draw(count),
        replicas=draw(count),
        updated=draw(count),
        ready=draw(count),
    )
    failure = draw(st.sampled_from([None, ApplyFailure(reason="Rejected", message="no")]))
    return Observed(now=NOW, rollout=rollout, pods=tuple(pods), failure=failure)


@settings(max_examples=300, deadline=None)
@given(observations())
def test_ready_is_the_truth(observed: Observed) -> None:
    """Ready of an index: every ready pod has this configuration and has loaded it, and there is one.

    Every reason is in the table, the status is what the types read, and the same look twice is one write.
    """
    status = status_of(observed)
    ready = [pod for pod in observed.pods if pod.ready]
    confirmed = ready and all(pod.configuration_hash == HASH for pod in ready)
    loaded = all("items" in pod.indexes and pod.indexes["items"].loaded for pod in ready)
    if told(status)["Ready"] == "True/Ready":
        assert confirmed
        assert loaded
        assert observed.rollout.complete
        assert observed.failure is None
    for each in status["conditions"]:
        assert each["reason"] in REASONS[ConditionType(each["type"])]
        assert each["message"]
    obj = {
        "metadata": {"name": "items", "namespace": "search", "uid": "u"},
        "spec": {"source": {"uri": "s3://a/b"}},
    }
    assert [*ConditionType] == [
        each.type for each in parse_index({**obj, "status": status}).status.conditions
    ]
    assert status == status_of(replace(observed, now=LATER), previous=status)


def test_a_server_that_is_not_taken_says_so() -> None:
    """An older index has its name, or it is paused: nothing changes, and its pods are what they were."""
    taken = pool(
        SERVER_POOL.key, [an_index("shared", creationTimestamp="2025-01-01T00:00:00Z")], [SERVER], now=NOW
    )
    assert taken is not None
    status = server_status(SERVER, pool=taken, rendered=None, observed=SETTLED, previous=None)
    refused = {"Accepted": "False/NameConflict", "Ready": "False/NameConflict", "Loaded": "True/NoIndexes"}
    assert {**TRUE_OF_ALL, **refused, "Progressing": "False/NotAccepted"} == told(status)

    paused = a_server("shared", {"replicas": 2, "paused": True})
    status = server_status(paused, pool=SERVER_POOL, rendered=RENDERED, observed=SETTLED, previous=None)
    assert {**TRUE_OF_ALL, "Progressing": "False/Paused"} == told(status)
