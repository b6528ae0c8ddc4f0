"""The configuration file followed live: applied as a whole, refused as a whole (O17)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kosine.configuration import load, settings_hash
from kosine.errors import UnknownIndex
from kosine.loading.config_watch import ConfigWatch
from kosine.settings import ServiceSettings
from tests.kit.loads import Rig, rig
from tests.kit.log_events import LogEvents, log_events
from tests.kit.writers import ConfigMapFolder, publish, put_whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kosine.settings import Settings

DEFAULTS = "defaults: {refresh: {settle: 50ms, interval: 1s}, batch: {max_rows: 8}}\n"
GOOD = DEFAULTS + "indexes: {items: {uri: items.npy}}\n"
MORE = DEFAULTS + "indexes: {items: {uri: items.npy, k: 3}, users: {uri: users.npy}}\ndefault_index: users\n"
LESS = DEFAULTS + "indexes: {users: {uri: users.npy}}\n"


@pytest.fixture(autouse=True)
async def logged() -> AsyncIterator[LogEvents]:
    """Events instead of lines."""
    async with log_events() as events:
        yield events


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two small indexes, and room for a configuration."""
    for name in ("items", "users"):
        publish(tmp_path / f"{name}.npy", np.eye(4, dtype=np.float32))
    return tmp_path


@contextlib.asynccontextmanager
async def following(path: Path, **options: Any) -> AsyncIterator[Rig]:
    """A service that follows the configuration at `path`."""
    async with watching(path, **options) as (service, _):
        yield service


@contextlib.asynccontextmanager
async def watching(
    path: Path, *, interval: float = 0.2, recheck: float = 0.1, **options: Any
) -> AsyncIterator[tuple[Rig, ConfigWatch]]:
    """The same, and what follows."""
    started_with = ServiceSettings(file_roots=(str(path.parent),))
    async with rig(recheck=recheck, settings=started_with) as service:
        watch = ConfigWatch(
            path,
            load=options.pop("load", partial(load, path)),
            catalog=service.catalog,
            watcher=service.watcher,
            threads=service.threads,
            metrics=service.metrics,
            interval=interval,
            settle=0.05,
        )
        watch.start()
        try:
            yield service, watch
        finally:
            await watch.close()


def in_force(service: Rig) -> tuple[float | None, str | None]:
    """What the metrics say: whether the file on disk is in force, and the hash of what is."""
    for family in service.metrics.registry.collect():
        if family.name == "kosine_config":
            hashes = [sample.labels["hash"] for sample in family.samples]
            break
    else:
        hashes = []
    value = service.metrics.registry.get_sample_value("kosine_config_last_reload_successful")
    return value, hashes[0] if hashes else None


async def test_indexes_come_change_and_go_live(folder: Path, logged: LogEvents) -> None:
    """Adding, changing and removing an index needs no restart; what did not change keeps its version."""
    path = folder / "kosine.yaml"
    path.write_text(GOOD)
    async with following(path) as service:
        await service.registry.until(lambda: service.registry.names() == ["items"])
        await service.registry.until(lambda: service.serves("items") is not None)
        items = service.registry.current("items")
        assert items is not None
        assert "items" == service.catalog.default_index()

        await asyncio.to_thread(put_whole, path, MORE)
        await service.registry.until(lambda: "users" in service.registry.names())
        await service.registry.until(lambda: service.serves("users") is not None)
        assert (3, "users") == (items.settings.k, service.catalog.default_index())
        assert items is service.registry.current("items")

        await asyncio.to_thread(put_whole, path, LESS)
        applied = await logged.wait("config_applied", count=3)
        assert ["users"] == service.registry.names()
        assert ("items",) == applied["removed"]
        with pytest.raises(UnknownIndex):
            service.registry.lease("items")
        users = await asyncio.to_thread(load, path)
        assert (1.0, settings_hash(users)) == in_force(service)


@pytest.mark.parametrize(
    "bad",
    [
        "indexes: {items: {uri: items.npy, kk: 3}}\n",
        "indexes: {items: {uri: items.npy}, items: {uri: users.npy}}\n",
        "indexes: {items: {uri: items.npy}}\ndefault_index: nobody\n",
        "indexes: [",
        "- just\n- a list\n",
        "\xff\xfe not utf-8 \x00",
        "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nindexes: {items: {uri: *b}}\n",
    ],
    ids=["unknown key", "duplicate key", "no such index", "no YAML", "no mapping", "binary", "aliases"],
)
async def test_a_bad_file_is_refused_whole(bad: str, folder: Path, logged: LogEvents) -> None:
    """O17: the old configuration stays, the log says once what is wrong, the next good file is applied."""
    path = folder / "kosine.yaml"
    path.write_text(GOOD)
    async with following(path) as service:
        await service.registry.until(lambda: service.serves("items") is not None)
        _, before = in_force(service)
        await asyncio.to_thread(put_whole, path, bad.encode("latin-1"))
        refused = await logged.wait("config_refused")

        assert "error" == refused["log_level"]
        assert refused["detail"]
        assert ["items"] == service.registry.names()
        assert (0.0, before) == in_force(service)

        await asyncio.to_thread(put_whole, path, MORE)
        await service.registry.until(lambda: "users" in service.registry.names())
        assert 1 == len(logged.named("config_refused"))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_the_writer_of_the_file_can_tell_when_it_is_in_force(folder: Path, logged: LogEvents) -> None:
    """The status names the bytes in force and the bytes refused; what waits for a restart is said."""
    path = folder / "kosine.yaml"
    path.write_text(GOOD)
    good = digest(path)
    async with watching(path) as (_, watch):
        await logged.wait("config_applied")
        first = watch.status()
        assert (good, (), None) == (first.hash, first.restart_needed, first.refused)

        await asyncio.to_thread(put_whole, path, "indexes: [")
        detail = (await logged.wait("config_refused"))["detail"]
        status = watch.status()
        assert (good, first.applied_at) == (status.hash, status.applied_at)
        assert status.refused is not None
        assert (digest(path), detail) == (status.refused.hash, status.refused.detail)

        await asyncio.to_thread(put_whole, path, "service: {port: 9999}\n" + MORE)
        await logged.wait("config_applied", count=2)
        last = watch.status()
        assert (digest(path), ("port",), None) == (last.hash, last.restart_needed, last.refused)

        await asyncio.to_thread(path.unlink)
        await logged.wait("config_refused", count=2)
        gone = watch.status()
        assert gone.refused is not None
        assert (last.hash, None) == (gone.hash, gone.refused.hash)


async def test_a_refused_file_that_is_put_back_counts_as_in_force_again(
    folder: Path, logged: LogEvents
) -> None:
    """Going back to the configuration in force changes no index, and clears the alarm."""
    path = folder / "kosine.yaml"
    path.write_text(GOOD)
    async with following(path) as service:
        await service.registry.until(lambda: service.serves("items") is not None)
        items = service.registry.current("items")
        await asyncio.to_thread(put_whole, path, "indexes: [")
        await logged.wait("config_refused")
        await asyncio.to_thread(put_whole, path, GOOD)
        await logged.wait("config_applied", count=2)

        assert 1.0 == in_force(service)[0]
        assert items is service.registry.current("items")


async def test_a_flipped_configmap_is_followed(folder: Path) -> None:
    """What Kubernetes does to a mounted ConfigMap: found by the folder's watch, with a poll of an hour."""
    mounted = folder / "etc"
    mounted.mkdir()
    config = ConfigMapFolder(mounted)

    def write(text: str) -> None:
        text = f"service: {{file_roots: ..}}\n{text.replace('uri: ', f'uri: {folder}/')}"
        config.write({"kosine.yaml": text.encode()})

    write(GOOD)
    async with following(mounted / "kosine.yaml", interval=3600.0) as service:
        await service.registry.until(lambda: service.serves("items") is not None)
        for text, names in ((MORE, ["items", "users"]), (LESS, ["users"]), (GOOD, ["items"])):
            await asyncio.to_thread(write, text)
            await service.registry.until(lambda: service.registry.names() == names)  # noqa: B023


async def test_a_file_that_is_gone_changes_nothing(folder: Path, logged: LogEvents) -> None:
    """Deleted by mistake: the configuration in force stays, one alarm, and the file is waited for."""
    path = folder / "kosine.yaml"
    path.write_text(GOOD)
    async with following(path, interval=0.05) as service:
        await service.registry.until(lambda: service.serves("items") is not None)
        await asyncio.to_thread(path.unlink)
        await logged.wait("config_refused")
        await asyncio.sleep(0.3)
        assert ["items"] == service.registry.names()
        assert 0.0 == in_force(service)[0]
        assert 1 == len(logged.named("config_refused"))

        await asyncio.to_thread(put_whole, path, GOOD)
        await logged.wait("config_applied", count=2)
        assert 1.0 == in_force(service)[0]


async def test_a_folder_that_comes_back_unchanged_clears_the_alarm(folder: Path, logged: LogEvents) -> None:
    """A mount that was away for a while: the very same file counts as in force again."""
    etc = folder / "etc"
    etc.mkdir()
    roots = f"service: {{file_roots: [{folder}]}}\n"
    (etc / "kosine.yaml").write_text(roots + GOOD.replace("uri: ", f"uri: {folder}/"))
    async with following(etc / "kosine.yaml", interval=0.05) as service:
        await service.registry.until(lambda: service.serves("items") is not None)
        await asyncio.to_thread(etc.rename, folder / "away")
        await logged.wait("config_refused")
        await asyncio.to_thread((folder / "away").rename, etc)
        await logged.wait("config_applied", count=2)

        assert 1.0 == in_force(service)[0]


async def test_a_file_still_being_written_is_not_applied(folder: Path, logged: LogEvents) -> None:
    """What changed while it was read is read again: neither applied nor refused."""
    path = folder / "kosine.yaml"
    path.write_text(GOOD)
    reads = 0

    def slow_load() -> Settings:
        nonlocal reads
        settings = load(path)
        reads += 1
        if reads == 2:
            put_whole(path, LESS)
        return settings

    async with following(path, load=slow_load) as service:
        await service.registry.until(lambda: service.serves("items") is not None)
        await asyncio.to_thread(put_whole, path, MORE)
        await service.registry.until(lambda: service.registry.names() == ["users"])

    applied = logged.named("config_applied")
    assert [("items",), ("users",)] == [one["added"] for one in applied]


async def test_a_defect_in_reading_it_is_not_the_end(folder: Path, logged: LogEvents) -> None:
    """Whatever the reader raises, the next configuration is seen."""
    path = folder / "kosine.yaml"
    path.write_text(GOOD)
    faulty = False

    def faulty_load() -> Settings:
        if faulty:
            raise ZeroDivisionError("a bug")
        return load(path)

    async with following(path, load=faulty_load, interval=0.05) as service:
        await service.registry.until(lambda: service.serves("items") is not None)
        faulty = True
        await asyncio.to_thread(put_whole, path, MORE)
        await logged.wait("config_defect")
        faulty = False
        await service.registry.until(lambda: service.serves("users") is not None)


async def test_the_service_section_waits_for_a_restart(folder: Path, logged: LogEvents) -> None:
    """Named in the log as long as it differs, and nothing else of the new file is held back."""
    path = folder / "kosine.yaml"
    path.write_text(GOOD)
    async with following(path) as service:
        await service.registry.until(lambda: service.serves("items") is not None)
        await asyncio.to_thread(put_whole, path, "service: {port: 9999}\n" + MORE)
        await service.registry.until(lambda: service.serves("users") is not None)

        assert ("port",) == (await logged.wait("config_needs_restart"))["settings"]
        await asyncio.to_thread(put_whole, path, "service: {port: 9999}\n" + LESS)
        assert ("port",) == (await logged.wait("config_needs_restart", count=2))["settings"]


async def test_an_edit_between_start_and_watching_is_not_lost(folder: Path) -> None:
    """The file is read once more when following begins."""
    path = folder / "kosine.yaml"
    path.write_text(GOOD)
    async with rig() as service:
        await service.catalog.apply(await asyncio.to_thread(load, path))
        await service.registry.until(lambda: service.serves("items") is not None)
        await asyncio.to_thread(put_whole, path, MORE)
        watch = ConfigWatch(
            path,
            load=partial(load, path),
            catalog=service.catalog,
            watcher=service.watcher,
            threads=service.threads,
            metrics=service.metrics,
            interval=3600.0,
            settle=0.05,
        )
        watch.start()
        try:
            await service.registry.until(lambda: service.serves("users") is not None)
        finally:
            await watch.close()
