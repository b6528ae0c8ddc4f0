"""`kosine publish` into a folder: all or nothing, alone or not at all, whoever is killed when."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from kosine import configuration
from kosine.cli import main
from kosine.errors import LoadCode, LoadError, StartupError
from kosine.loading.inspection import Inspection
from kosine.publishing.local import LocalTarget
from kosine.publishing.publication import Publication, Step, prepare, publish
from kosine.publishing.target import PublishConflict
from tests.kit.loads import index_settings, rig
from tests.kit.npy_files import unit_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from click.testing import Result

ROWS, DIM = 40, 5


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The folder to publish to."""
    folder = tmp_path / "served"
    folder.mkdir()
    return folder


def pair(folder: Path, seed: int) -> tuple[Path, Path]:
    """Vectors and ids of generation `seed`, as a job wrote them."""
    vectors, ids = folder / f"{seed}.npy", folder / f"{seed}.ids.npy"
    np.save(vectors, unit_rows(ROWS, DIM, seed=seed).astype(np.float32))
    np.save(ids, np.arange(ROWS) + 1000 * seed)
    return vectors, ids


def prepared(folder: Path, seed: int) -> Publication:
    """Generation `seed`, ready to be published as `items`."""
    vectors, ids = pair(folder, seed)
    publication = prepare(
        str(vectors),
        ids=str(ids),
        masks={},
        name="items",
        layout="rows",
        dim=None,
        metric="cosine",
        progress=lambda *_: None,
    )
    assert isinstance(publication, Publication)
    return publication


def publishing(folder: Path, publication: Publication, *, keep: int | None = None) -> Any:
    """The steps of a publication, done as they are asked for."""
    return publish(publication, LocalTarget(folder), keep=keep, dry_run=False, progress=lambda *_: None)


def kosine_publish(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["publish", *map(str, arguments)], prog_name="kosine")


def manifest_of(folder: Path, name: str = "items") -> dict[str, Any]:
    """What is published; every file it names is there and is the one it tells of."""
    manifest: dict[str, Any] = json.loads((folder / f"{name}.json").read_bytes())
    for part, digest in manifest["sha256"].items():
        assert digest == hashlib.sha256((folder / manifest[part]).read_bytes()).hexdigest()
    return manifest


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_what_is_published_can_be_served_with_the_lines_it_prints(tmp_path: Path, served: Path) -> None:
    """Two objects named by their content, the manifest, and YAML that names it."""
    vectors, ids = pair(tmp_path, 1)
    done = kosine_publish(vectors, "--ids", ids, served, "--name", "items")
    assert 0 == done.exit_code, done.output
    manifest = manifest_of(served)
    assert (ROWS, DIM) == (manifest["rows"], manifest["dim"])
    assert sorted([manifest["ids"], manifest["vectors"], "items.json"]) == visible(served)
    settings = configuration.parse(done.output[done.output.index("indexes:") :])
    assert str(served / "items.json") == settings.indexes["items"].uri


def test_masks_are_published_with_their_vectors(tmp_path: Path, served: Path) -> None:
    """Each under a name of its content, named by the manifest; of another length nothing is written."""
    vectors, ids = pair(tmp_path, 1)
    flags = np.arange(ROWS) % 2 == 0
    masks = {"in_stock": flags, "new": ~flags, "again": flags, "short": flags[1:]}
    for name, each in masks.items():
        np.save(tmp_path / f"{name}.npy", each)

    def with_masks(*names: str) -> Result:
        options = [word for name in names for word in ("--mask", f"{name}={tmp_path / name}.npy")]
        return kosine_publish(vectors, "--ids", ids, served, "--name", "items", *options)

    refused = with_masks("in_stock", "short")
    assert (1, []) == (refused.exit_code, visible(served))
    assert "mask_length: mask short: expected one bool for each of 40 rows, got 39" in refused.output
    done = with_masks("in_stock", "new", "again")
    assert 0 == done.exit_code, done.output
    named = json.loads((served / "items.json").read_bytes())["masks"]
    assert named["in_stock"] == named["again"] != named["new"]
    assert {"items.json", *named.values()} < {*visible(served)}
    assert 5 == len(visible(served))
    for wrong in ("In=a.npy", "in_stock", "in_stock="):
        assert 2 == kosine_publish(vectors, served, "--mask", wrong).exit_code
    assert 2 == kosine_publish(vectors, served, "--mask", "a=b.npy", "--mask", "a=c.npy").exit_code


async def test_a_publication_of_another_mask_builds_nothing(tmp_path: Path, served: Path) -> None:
    """The manifest is another one, and what it says of vectors and ids is not."""
    vectors, ids = pair(tmp_path, 1)
    mask = tmp_path / "in_stock.npy"

    def put(flags: Any) -> None:
        np.save(mask, flags)
        options = ("--ids", ids, "--name", "items", "--mask", f"in_stock={mask}")
        assert 0 == kosine_publish(vectors, served, *options).exit_code

    first, second = np.arange(ROWS) < 10, np.arange(ROWS) < 20
    await asyncio.to_thread(put, first)
    async with rig() as service:
        await service.apply(items=index_settings(served / "items.json"))
        await service.registry.until(lambda: service.serves() is not None)
        version = service.registry.current("items")
        assert version is not None
        assert 10 == version.masks.named["in_stock"].true
        await asyncio.to_thread(put, second)
        await service.registry.until(lambda: version.masks.named["in_stock"].true == 20)
        assert (version, 1) == (service.registry.current("items"), len(service.device.built))

        # Who writes to what a manifest names is found out.
        published = json.loads(await asyncio.to_thread((served / "items.json").read_bytes))
        np.save(served / published["masks"]["in_stock"], first)
        await service.registry.until(lambda: service.error() == ("digest_mismatch", "check"))
        assert 20 == version.masks.named["in_stock"].true


def test_the_same_content_is_written_once(tmp_path: Path, served: Path) -> None:
    """Published again nothing is written, not even the manifest."""
    vectors, ids = pair(tmp_path, 1)
    kosine_publish(vectors, "--ids", ids, served)
    before = {path: path.stat().st_mtime_ns for path in served.iterdir()}
    again = kosine_publish(vectors, "--ids", ids, served)
    assert (0, 3) == (again.exit_code, len(re.findall("^kept", again.output, re.MULTILINE)))
    assert before == {path: path.stat().st_mtime_ns for path in served.iterdir()}


def test_a_rollback_writes_the_manifest_only(tmp_path: Path, served: Path) -> None:
    """The old files are still there and are found by their content."""
    old, new = prepared(tmp_path, 1), prepared(tmp_path, 2)
    for publication in (old, new):
        assert 3 == [step.did for step in publishing(served, publication)].count("wrote")
    assert ["kept", "kept", "wrote"] == [step.did for step in publishing(served, old)]
    assert old.vectors.file == manifest_of(served)["vectors"]


def test_a_damaged_object_is_repaired(tmp_path: Path, served: Path) -> None:
    """What is there under the right name is read, not trusted."""
    publication = prepared(tmp_path, 1)
    list(publishing(served, publication))
    (served / publication.vectors.file).write_bytes(b"damaged")
    steps = list(publishing(served, publication))
    assert Step("repaired", publication.vectors.file, publication.vectors.fingerprint.size) == steps[0]
    manifest_of(served)


def test_a_dry_run_writes_nothing(tmp_path: Path, served: Path) -> None:
    """It says what would be, and leaves no trace."""
    vectors, ids = pair(tmp_path, 1)
    done = kosine_publish(vectors, "--ids", ids, served, "--dry-run", "--keep", "1")
    assert (0, 3) == (done.exit_code, done.output.count("would write"))
    assert [] == list(served.iterdir())


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda vectors, _ids: vectors.write_bytes(vectors.read_bytes()[:-1]), "size_mismatch"),
        (lambda vectors, _ids: np.save(vectors, np.zeros((ROWS, DIM))), "zero_rows"),
        (lambda vectors, _ids: np.save(vectors, np.full((ROWS, DIM), np.nan)), "not_finite"),
        (lambda _vectors, ids: np.save(ids, np.zeros(ROWS, np.int64)), "ids_duplicate"),
        (lambda _vectors, ids: np.save(ids, np.arange(ROWS - 1)), "ids_length"),
        (lambda _vectors, ids: ids.unlink(), "source_missing"),
        (lambda vectors, _ids: vectors.unlink(), "source_missing"),
    ],
)
def test_what_the_service_would_refuse_is_not_published(
    spoil: Any, code: str, tmp_path: Path, served: Path
) -> None:
    """Exit code 1 with the code that a load would give, and nothing is written."""
    vectors, ids = pair(tmp_path, 1)
    spoil(vectors, ids)
    done = kosine_publish(vectors, "--ids", ids, served)
    assert (1, True) == (done.exit_code, f"{code}: " in done.output), done.output
    assert [] == list(served.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("missing",), "the folder "),
        (("s3://bucket/../x",), "target: expected s3://bucket/prefix/"),
        (("s3://bucket//x",), "target: expected s3://bucket/prefix/"),
        (("s3://key:secret@bucket/x",), "target: expected s3://bucket/prefix/"),
        (("s3://",), "target: expected s3://bucket/prefix/"),
        (("gs://bucket/../x",), "target: expected gs://bucket/prefix/"),
        (("gs://Bucket/",), "target: expected gs://bucket/prefix/"),
        (("http://host/",), "`http://` is no target; expected a folder of this machine, s3://"),
        (("file://elsewhere/srv",), "a file URL names no host"),
        (("served", "--name", "../x"), "--name: expected 1 to 63 of a-z, 0-9 and inner hyphens"),
        (("served", "--name", "Items"), "--name: expected"),
        (("served", "--keep", "0"), "--keep"),
        (("served", "--layout", "diagonal"), "--layout"),
    ],
)
def test_what_cannot_be_done_is_exit_code_2(
    arguments: tuple[str, ...], said: str, tmp_path: Path, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message that says what was expected; nothing is written."""
    monkeypatch.chdir(tmp_path)
    done = kosine_publish(pair(tmp_path, 1)[0], *arguments)
    assert (2, True) == (done.exit_code, said in done.output), done.output
    assert [] == list(served.iterdir())


def test_a_manifest_is_no_vectors(tmp_path: Path, served: Path) -> None:
    """What is inspected as a manifest is not published as a matrix."""
    list(publishing(tmp_path, prepared(tmp_path, 1)))
    done = kosine_publish(tmp_path / "items.json", served)
    assert (2, True) == (done.exit_code, "a manifest is what comes out" in done.output), done.output
    assert [] == list(served.iterdir())


def test_a_json_of_somebody_else_is_not_replaced(tmp_path: Path, served: Path) -> None:
    """A package.json is no manifest; the way out is named."""
    (served / "items.json").write_text('{"name": "shop"}')
    with pytest.raises(StartupError, match="It is not replaced: remove it, or publish under another --name"):
        list(publishing(served, prepared(tmp_path, 1)))
    assert ["items.json"] == visible(served)


def test_old_versions_are_removed_when_asked(tmp_path: Path, served: Path) -> None:
    """What is served, the newest and what any manifest there names stay; other files are not its business."""
    publications = [prepared(tmp_path, seed) for seed in range(5)]
    for age, publication in enumerate(publications):
        list(publishing(served, publication))
        for original in publication.originals:
            os.utime(served / original.file, (1_000_000 + age, 1_000_000 + age))
    (served / "pinned.json").write_text(json.dumps({"vectors": publications[1].vectors.file}))
    for name in ("items-notes.npy", "items-2.npy", f"items-more-{'0' * 32}.npy"):
        (served / name).touch()
    steps = list(publishing(served, publications[0], keep=2))
    gone = [publications[age].vectors.file for age in (2, 3)]
    gone += [original.file for age in (1, 2, 3) for original in publications[age].originals[1:]]
    assert sorted(gone) == [step.file for step in steps if step.did == "removed"]
    assert publications[0].vectors.file == manifest_of(served)["vectors"]
    assert 3 + 2 + 2 + 3 == len(visible(served))


def test_a_file_that_changes_after_it_was_checked_is_not_published(tmp_path: Path, served: Path) -> None:
    """Not even where its new content would be good: it has another digest."""
    publication = prepared(tmp_path, 1)
    np.save(tmp_path / "1.npy", unit_rows(ROWS, DIM, seed=2).astype(np.float32))
    with pytest.raises(LoadError) as refused:
        list(publishing(served, publication))
    assert LoadCode.CHANGED_WHILE_READING is refused.value.code
    assert [] == visible(served)
    assert [] == list(served.glob(".*.partial"))


def test_refusals_of_the_file_system_are_told(tmp_path: Path, served: Path) -> None:
    """A full or read-only folder is exit code 2, and what is served has not changed."""
    publication = prepared(tmp_path, 1)
    (served / f"{publication.name}.json").mkdir()
    with pytest.raises(StartupError, match=r"cannot publish to .*: Is a directory"):
        list(publishing(served, publication))


def test_an_inspection_is_what_a_refused_file_gives(tmp_path: Path) -> None:
    """`prepare` reads all of the files and lists every fault."""
    vectors, _ = pair(tmp_path, 1)
    spoilt = np.ones((3, 2))
    spoilt[0], spoilt[1] = np.nan, 0
    np.save(vectors, spoilt)
    found = prepare(
        str(vectors),
        ids=None,
        masks={},
        name="a",
        layout=None,
        dim=None,
        metric="cosine",
        progress=lambda *_: None,
    )
    assert isinstance(found, Inspection)
    assert ["not_finite", "zero_rows"] == [refusal.code for refusal in found.refusals]


# ---- two publishers ----


def test_a_second_publisher_is_told_at_once(tmp_path: Path, served: Path) -> None:
    """While one is at work the other writes nothing; another name is another publication."""
    first, second = prepared(tmp_path, 1), prepared(tmp_path, 2)
    steps = publishing(served, first)
    next(steps)
    with pytest.raises(PublishConflict, match="another publisher of items is at work in this folder"):
        list(publishing(served, second))
    assert 0 == kosine_publish(tmp_path / "2.npy", served, "--name", "others").exit_code
    done = kosine_publish(tmp_path / "2.npy", served, "--name", "items")
    assert (1, True) == (done.exit_code, "at work in this folder" in done.output)
    list(steps)
    assert first.vectors.file == manifest_of(served)["vectors"]


def test_a_manifest_that_another_hand_wrote_is_not_lost(tmp_path: Path, served: Path) -> None:
    """Who does not take the lock is still noticed: the manifest is compared before it is replaced."""
    steps = publishing(served, prepared(tmp_path, 1))
    next(steps)
    (served / "items.json").write_text('{"vectors": "by-hand.npy"}')
    with pytest.raises(PublishConflict, match="another publisher was faster"):
        list(steps)
    assert {"vectors": "by-hand.npy"} == json.loads((served / "items.json").read_bytes())


def test_of_two_publishers_one_wins_and_the_other_knows(tmp_path: Path, served: Path) -> None:
    """20 races: what is published is one of the two, complete; it is the last of those told that they won."""
    publications = [prepared(tmp_path, seed) for seed in range(40)]
    lost = 0
    for first in range(0, 40, 2):
        barrier, won = threading.Barrier(2), []

        def race(publication: Publication) -> None:
            barrier.wait()  # noqa: B023
            try:
                list(publishing(served, publication))
            except PublishConflict:
                return
            won.append(publication.vectors.file)  # noqa: B023

        racers = [threading.Thread(target=race, args=(publications[first + one],)) for one in (0, 1)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        lost += 2 - len(won)
        assert manifest_of(served)["vectors"] in won
        assert [] == list(served.glob(".*.partial"))
    assert lost > 0


# ---- a publisher that is killed ----

PUBLISHERS = """
import json, os, signal, sys
import kosine.cli.publish
from kosine.cli import main

def publish_until(step, folder, arguments):
    def watch(event, arguments):
        nonlocal step
        if event == "fcntl.flock" or (arguments and str(arguments[0]).startswith(folder)):
            step -= 1
            if not step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    main(["publish", *arguments], prog_name="kosine")

for line in sys.stdin:
    child = os.fork()
    if not child:
        sys.stdout = open(os.devnull, "w")
        publish_until(*json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""A process with everything imported, which makes a publisher of each line."""


@pytest.fixture
def killed_at() -> Iterator[Callable[[int, Path, tuple[Any, ...]], bool]]:
    """Publishes in a process that is killed right before the file system is touched for the nth time.

    Tells whether it was; every publisher is a process of its own.
    """
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PUBLISHERS]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None

        def publish_until(step: int, served: Path, arguments: tuple[Any, ...]) -> bool:
            assert parent.stdin is not None
            assert parent.stdout is not None
            parent.stdin.write(json.dumps([step, str(served), list(map(str, arguments))]) + "\n")
            parent.stdin.flush()
            code = int(parent.stdout.readline())
            assert code in (0, -signal.SIGKILL)
            return code != 0

        yield publish_until
        parent.stdin.close()


async def test_a_publisher_that_is_killed_leaves_what_was_published(
    tmp_path: Path, served: Path, killed_at: Callable[[int, Path, tuple[Any, ...]], bool]
) -> None:
    """At every step: the old pair or the new one, complete; it serves; the next publisher goes on."""
    old, new = await asyncio.to_thread(lambda: [prepared(tmp_path, seed) for seed in (1, 2)])
    arguments = (
        tmp_path / "2.npy",
        "--ids",
        tmp_path / "2.ids.npy",
        served,
        "--name",
        "items",
        "--keep",
        "1",
    )
    await asyncio.to_thread(list, publishing(served, old))
    step, died_after_the_manifest = 1, 0
    async with rig() as service:
        await service.apply(items=index_settings(served / "items.json"))
        await service.registry.until(lambda: service.serves() is not None)
        while await asyncio.to_thread(killed_at, step, served, arguments):
            step += 1
            vectors = (await asyncio.to_thread(manifest_of, served))["vectors"]
            seed = {old.vectors.file: 1, new.vectors.file: 2}[vectors]
            await service.catalog.force("items")
            answer = await service.ask("items", unit_rows(ROWS, DIM, seed=seed)[7])
            assert [1000 * seed + 7] == answer.ids
            if seed == 2:
                died_after_the_manifest += 1
                await asyncio.to_thread(list, publishing(served, old))
        assert service.error() is None
    assert step > 12
    assert died_after_the_manifest > 1
    assert new.vectors.file == (await asyncio.to_thread(manifest_of, served))["vectors"]
    assert 3 == len(await asyncio.to_thread(visible, served))
    assert not any(name.endswith(".partial") for name in os.listdir(served))  # noqa: PTH208
