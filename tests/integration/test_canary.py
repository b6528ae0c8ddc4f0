"""What a new version must show before callers get it: real files and threads, NumPy scores."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from kosine.settings import BatchSettings, CanarySettings
from tests.kit.http_service import until
from tests.kit.loads import index_settings, rig
from tests.kit.writers import publish

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from kosine.serving.status import CanaryCheck, CanaryReport
    from tests.kit.loads import Rig

ROWS, DIM = 300, 8


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """Events instead of lines."""
    with capture_logs() as events:
        yield events


@pytest.fixture
async def service() -> AsyncIterator[Rig]:
    """Without indexes."""
    async with rig() as running:
        yield running


def vectors(seed: int, *, rows: int = ROWS) -> NDArray[np.float32]:
    drawn = np.random.default_rng(seed).standard_normal((rows, DIM))
    unit: NDArray[np.float32] = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    return unit


def neighbours(matrix: NDArray[np.float32], row: int, k: int = 3) -> list[int]:
    """The rows most like `row`, by NumPy."""
    scores = matrix.astype(np.float64) @ matrix[row].astype(np.float64)
    return [int(each) for each in np.argsort(-scores, kind="stable") if each != row][:k]


async def begin(service: Rig, path: Path, *, canary: CanarySettings, **settings: Any) -> None:
    """Serve what is at `path`."""
    await service.apply(items=index_settings(path, canary=canary, **settings))
    await service.registry.until(lambda: bool(service.registry.published))


def report(service: Rig) -> CanaryReport:
    found = service.registry.load_status("items").canary
    assert found is not None
    return found


def checks(service: Rig) -> dict[str, CanaryCheck]:
    return {check.name: check for check in report(service).checks}


def outcomes(service: Rig) -> dict[str, str]:
    return {name: check.outcome for name, check in checks(service).items()}


async def refused(service: Rig, stage: str = "canary") -> dict[str, Any]:
    """Facts of the refusal; what served before serves on."""
    served = service.registry.published[-1]
    await service.registry.until(lambda: service.error() == ("canary_failed", stage))
    current = service.registry.current("items")
    assert current is not None
    assert served == current.info.digest
    failure = service.registry.load_status("items").last_error
    assert failure is not None
    return failure.facts


async def test_the_first_version_has_nothing_to_compare_with(service: Rig, tmp_path: Path) -> None:
    """Drift and overlap are skipped and said to be; golden queries are asked of it already."""
    path, golden = tmp_path / "items.npy", tmp_path / "golden.json"
    publish(path, vectors(0))
    golden.write_text(json.dumps({"queries": [{"id": 7, "expected": neighbours(vectors(0), 7), "k": 3}]}))
    canary = CanarySettings(max_row_drift_percent=5, golden=str(golden), min_overlap_percent=50)
    await begin(service, path, canary=canary)
    assert {"row_drift": "skipped", "golden": "passed", "overlap": "skipped"} == outcomes(service)
    assert service.serves() == report(service).version


async def test_a_first_version_without_its_golden_items_is_not_served(service: Rig, tmp_path: Path) -> None:
    """Better 503 than answers that somebody has said to be wrong."""
    path, golden = tmp_path / "items.npy", tmp_path / "golden.json"
    publish(path, vectors(0))
    wrong = [row for row in range(20) if row not in neighbours(vectors(0), 7, 5)][:2]
    golden.write_text(json.dumps({"queries": [{"id": 7, "k": 5, "expected": wrong, "min_found": 0.5}]}))
    await service.apply(items=index_settings(path, canary=CanarySettings(golden=str(golden))))
    await service.registry.until(lambda: service.error() == ("canary_failed", "canary"))
    assert service.serves() is None
    assert [engine.closed for engine in service.device.built] == [True]


@pytest.mark.parametrize(("rows", "passes"), [(330, True), (331, False), (270, True), (269, False)])
async def test_a_number_of_rows_that_drifts_is_refused_by_its_header(
    service: Rig, tmp_path: Path, rows: int, passes: bool
) -> None:
    """Up or down, before anything but the header is read; nothing is built for it."""
    path = tmp_path / "items.npy"
    publish(path, vectors(0))
    await begin(service, path, canary=CanarySettings(max_row_drift_percent=10))
    publish(path, vectors(1, rows=rows))
    if passes:
        await service.registry.until(lambda: len(service.registry.published) == 2)
        assert {"row_drift": "passed"} == outcomes(service)
        return
    drift = abs(rows - ROWS) / ROWS * 100
    assert {"check": "row_drift", "expected": 10, "came": round(drift, 3)} == await refused(service, "gate")
    assert (1, None) == (len(service.device.built), report(service).version)


async def test_golden_queries_by_id_and_by_embedding_are_asked_as_callers_ask(
    service: Rig, tmp_path: Path
) -> None:
    """The new version must find what is expected, by the ids of its file; one that does not is refused."""
    path, ids, golden = tmp_path / "items.npy", tmp_path / "ids.npy", tmp_path / "golden.json"
    names = np.array([f"sku-{row}" for row in range(ROWS)])
    publish(ids, names)
    publish(path, vectors(0))
    near = [f"sku-{row}" for row in neighbours(vectors(0), 7)]
    queries = [
        {"id": "sku-7", "k": 3, "expected": near},
        {"embedding": vectors(0)[7].tolist(), "k": 4, "expected": ["sku-7", *near]},
        {"id": "sku-9", "k": 1, "expected": ["sku-0", *near], "min_found": 0.01},
    ]
    golden.write_text(json.dumps({"queries": queries[:2]}))
    canary = CanarySettings(golden=str(golden))
    await begin(service, path, canary=canary, ids=str(ids))
    assert ("passed", 100.0) == (checks(service)["golden"].outcome, checks(service)["golden"].came)

    publish(path, vectors(1))
    facts = await refused(service)
    assert ("golden", 100.0) == (facts["check"], facts["expected"])
    assert facts["came"] < 100.0
    assert service.device.built[-1].closed


async def test_an_item_that_is_asked_by_and_gone_fails_its_query(service: Rig, tmp_path: Path) -> None:
    """It is told apart from one that finds too little."""
    path, golden = tmp_path / "items.npy", tmp_path / "golden.json"
    publish(path, vectors(0))
    golden.write_text(json.dumps({"queries": [{"id": ROWS - 1, "k": 300, "expected": [0]}]}))
    await begin(service, path, canary=CanarySettings(golden=str(golden)))
    publish(path, vectors(0)[:-1])
    assert 0.0 == (await refused(service))["came"]
    assert "query 0: the item it asks by is gone" in checks(service)["golden"].detail


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "truncated"),
        ('{"queries": [{"embedding": [1, 2], "expected": [1]}]}', "expected 8 numbers, got 2"),
        ('{"queries": [{"id": "a", "expected": ["b"]}]}', "ids of this index are whole numbers"),
    ],
)
async def test_a_golden_file_that_is_bad_itself_costs_a_look_at_the_header(
    service: Rig, tmp_path: Path, content: str, told: str
) -> None:
    """It is no failure of the new version: another code, tried at every poll."""
    path, golden = tmp_path / "items.npy", tmp_path / "golden.json"
    publish(path, vectors(0))
    golden.write_text(json.dumps({"queries": [{"id": 7, "k": 300, "expected": [3]}]}))
    await begin(service, path, canary=CanarySettings(golden=str(golden)))
    good = golden.read_text()
    golden.write_text(content)
    publish(path, vectors(1))
    await service.registry.until(lambda: service.error() == ("bad_golden", "gate"))
    failure = service.registry.load_status("items").last_error
    assert failure is not None
    assert told in failure.detail
    assert 1 == len(service.device.built)

    golden.write_text(good)
    await service.registry.until(lambda: len(service.registry.published) == 2)


async def test_a_golden_file_that_is_missing_is_named(service: Rig, tmp_path: Path) -> None:
    """`source_missing` alone would have somebody look for the wrong file."""
    path = tmp_path / "items.npy"
    publish(path, vectors(0))
    await service.apply(
        items=index_settings(path, canary=CanarySettings(golden=str(tmp_path / "golden.json")))
    )
    await service.registry.until(lambda: service.error() == ("source_missing", "gate"))
    failure = service.registry.load_status("items").last_error
    assert failure is not None
    assert "golden" == failure.facts["file"]
    (tmp_path / "golden.json").write_text(json.dumps({"queries": [{"id": 7, "k": 300, "expected": [3]}]}))
    await service.registry.until(lambda: service.serves() is not None)


async def test_neighbourhoods_that_stay_pass_though_rows_move_come_and_go(
    service: Rig, tmp_path: Path
) -> None:
    """Items are compared by their ids, and only those that both versions hold."""
    path, manifest = tmp_path / "items-1.npy", tmp_path / "items.json"
    publish(path, vectors(0))
    publish(tmp_path / "ids-1.npy", np.arange(1000, 1000 + ROWS))
    manifest.write_text(json.dumps({"vectors": "items-1.npy", "ids": "ids-1.npy"}))
    await begin(service, manifest, canary=CanarySettings(min_overlap_percent=100, overlap_sample=40))

    order = np.random.default_rng(3).permutation(ROWS)[: ROWS - 20]
    publish(tmp_path / "items-2.npy", np.concatenate((vectors(5, rows=30), vectors(0)[order])))
    publish(tmp_path / "ids-2.npy", np.concatenate((np.arange(30), 1000 + order)))
    manifest.write_text(json.dumps({"vectors": "items-2.npy", "ids": "ids-2.npy"}))
    await service.registry.until(lambda: len(service.registry.published) == 2)
    overlap = checks(service)["overlap"]
    assert ("passed", 100.0) == (overlap.outcome, overlap.came)
    assert "neighbours of 40 items" in overlap.detail


async def test_neighbourhoods_that_change_are_refused(
    service: Rig, tmp_path: Path, logged: list[Any]
) -> None:
    """A file of another model has the right shape and the wrong vectors."""
    path = tmp_path / "items.npy"
    publish(path, vectors(0))
    await begin(service, path, canary=CanarySettings(max_row_drift_percent=1, min_overlap_percent=60))
    publish(path, vectors(1))
    facts = await refused(service)
    assert ("overlap", 60) == (facts["check"], facts["expected"])
    assert {"row_drift": "passed", "overlap": "failed"} == outcomes(service)
    told = [event for event in logged if event["event"] == "canary_checked"][-1]
    assert ["passed", "failed"] == [check["outcome"] for check in told["checks"]]
    count = service.metrics.registry.get_sample_value
    labels = {"index": "items", "check": "overlap", "outcome": "failed"}
    assert 1 == count("kosine_canary_checks_total", labels)


async def test_versions_with_other_ids_have_nothing_in_common(service: Rig, tmp_path: Path) -> None:
    """Numbers in place of texts, say: refused, though no neighbour differs."""
    path, manifest = tmp_path / "items.npy", tmp_path / "items.json"
    publish(path, vectors(0))
    publish(tmp_path / "numbers.npy", np.arange(ROWS))
    publish(tmp_path / "texts.npy", np.arange(ROWS).astype(str))
    manifest.write_text(json.dumps({"vectors": "items.npy", "ids": "numbers.npy"}))
    await begin(service, manifest, canary=CanarySettings(min_overlap_percent=1))
    manifest.write_text(json.dumps({"vectors": "items.npy", "ids": "texts.npy"}))
    assert 0.0 == (await refused(service))["came"]
    assert "none of the sampled items" in checks(service)["overlap"].detail


async def test_every_try_compares_the_same_items(service: Rig, tmp_path: Path) -> None:
    """The sample is drawn by the name of the new version, so a refusal is no matter of luck."""
    path = tmp_path / "items.npy"
    publish(path, vectors(0))
    canary = CanarySettings(min_overlap_percent=100, overlap_sample=20, overlap_k=5)
    await begin(service, path, canary=canary)
    nudged = vectors(0) + 0.2 * vectors(1)
    publish(path, nudged)
    first = await refused(service)
    outcome = await service.catalog.force("items")
    assert outcome.error is not None
    assert (first, 2) == (outcome.error.facts, outcome.error.consecutive)
    assert 0 < first["came"] < 100


async def test_the_live_version_is_asked_one_query_at_a_time_behind_its_callers(tmp_path: Path) -> None:
    """While callers fill its queue the canary waits; none of them is refused for it."""
    path, held = tmp_path / "items.npy", threading.Event()
    publish(path, vectors(0))
    async with rig() as service:
        await begin(
            service,
            path,
            canary=CanarySettings(min_overlap_percent=0, overlap_sample=5),
            batch=BatchSettings(max_rows=8, queue_rows=8),
        )
        live = service.device.built[0]
        live.hold, live.batches[:] = held, []
        callers = [asyncio.create_task(service.ask("items", vectors(0)[0]))]
        await until(lambda: bool(live.batches))
        callers += [asyncio.create_task(service.ask("items", vectors(0)[row])) for row in range(1, 9)]
        publish(path, vectors(1))
        await service.registry.until(lambda: str(service.registry.load_status("items").stage) == "canary")
        held.set()
        answers = await asyncio.gather(*callers)
        assert [[row] for row in range(9)] == [answer.ids for answer in answers]
        await service.registry.until(lambda: len(service.registry.published) == 2)
        own = [rows for rows, k in live.batches if k > 1]
        assert [1] * 5 == own
        assert "passed" == outcomes(service)["overlap"]


async def test_a_load_that_waits_for_the_live_version_ends_by_its_time_limit(tmp_path: Path) -> None:
    """An engine that hangs keeps nobody waiting for ever: `timed_out` at the canary, tried again."""
    path, held = tmp_path / "items.npy", threading.Event()
    publish(path, vectors(0))
    async with rig() as service:
        await begin(service, path, canary=CanarySettings(min_overlap_percent=0), timeout=0.5)
        service.device.built[0].hold = held
        publish(path, vectors(1))
        try:
            await service.registry.until(lambda: service.error() == ("timed_out", "canary"))
        finally:
            held.set()
        await service.registry.until(lambda: len(service.registry.published) == 2)


async def test_an_index_that_is_removed_during_its_canary_leaves_nothing(tmp_path: Path) -> None:
    """The load is called off, and its engine closed."""
    path, held = tmp_path / "items.npy", threading.Event()
    publish(path, vectors(0))
    async with rig() as service:
        await begin(service, path, canary=CanarySettings(min_overlap_percent=0))
        service.device.built[0].hold = held
        publish(path, vectors(1))
        await service.registry.until(lambda: str(service.registry.load_status("items").stage) == "canary")
        removing = asyncio.create_task(service.apply())
        await asyncio.sleep(0)
        held.set()
        await removing
        await until(lambda: all(engine.closed for engine in service.device.built))
        assert 2 == len(service.device.built)
