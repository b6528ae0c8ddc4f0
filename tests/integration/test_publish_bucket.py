"""`kosine publish` into a bucket, against real servers: conditional writes keep publishers apart.

The same laws hold for S3 and GCS. Google's emulator compares nothing before it writes, so the laws of two
publishers skip it and hold against fake-gcs-server; that the comparison is asked for is seen on the wire.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import random
import re
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from kosine import configuration
from kosine.cli import main
from kosine.errors import LoadError, StartupError
from kosine.loading.admission import Admission
from kosine.loading.inspection import Inspection
from kosine.loading.job import LoadJob
from kosine.loading.pipeline import LoadedIndex, Pipeline
from kosine.loading.storage.gcs_writing import GcsWritableStore
from kosine.loading.storage.s3_writing import S3WritableStore
from kosine.loading.storage.stores import Stores
from kosine.publishing.bucket import BucketTarget
from kosine.publishing.publication import Publication, Step, prepare, publish
from kosine.publishing.target import PublishConflict
from kosine.retries import RetryPolicy
from kosine.settings import IndexSettings, ServiceSettings, Settings, StoresSettings
from kosine.source_uri import COMMAND_LINE
from tests.kit.engines import NumpyDevice
from tests.kit.fault_proxy import Fault, fault_proxy, in_turn
from tests.kit.loads import memory
from tests.kit.npy_files import unit_rows
from tests.kit.object_stores import BUCKET, ObjectServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.fault_proxy import Request

pytestmark = pytest.mark.stores

ROWS, DIM = 40, 5
PART = 5 * 2**20
"""The least that S3 takes for a part that is not the last."""
REAL = [
    pytest.param("versitygw", marks=pytest.mark.stores),
    pytest.param("fake_gcs", marks=pytest.mark.stores),
]


@pytest.fixture(params=["moto", "emulator", *REAL])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ObjectServer:
    """A store; its credentials are in the environment."""
    found: ObjectServer = request.getfixturevalue(request.param)
    for name, value in found.environment().items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def comparing(request: pytest.FixtureRequest, server: ObjectServer) -> ObjectServer:
    """A store that compares before it writes."""
    if request.node.callspec.params["server"] == "emulator":
        pytest.skip("gcp-storage-emulator does not look at ifGenerationMatch")
    return server


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    """A place of its own in the bucket."""
    return f"{tmp_path.name}/"


@pytest.fixture
def target(server: ObjectServer, prefix: str) -> Iterator[BucketTarget]:
    """One publisher's."""
    with contextlib.closing(target_at(server, prefix)) as one:
        yield one


@pytest.fixture
def other(server: ObjectServer, prefix: str) -> Iterator[BucketTarget]:
    """Another's, in the same place."""
    with contextlib.closing(target_at(server, prefix)) as one:
        yield one


def target_at(
    server: ObjectServer,
    prefix: str,
    *,
    endpoint: str | None = None,
    bucket: str = BUCKET,
    attempts: int = 5,
) -> BucketTarget:
    """A publisher's, maybe through what stands at `endpoint`; parts are small."""
    stores, policy = server.settings(endpoint=endpoint), RetryPolicy(attempts=attempts, first=0.01)
    if server.kind == "s3":
        s3 = S3WritableStore(stores.s3, idle_timeout=10, part_bytes=PART)
        return BucketTarget("s3", bucket, prefix, store=s3, policy=policy)
    gcs = GcsWritableStore(stores.gcs, idle_timeout=10, part_bytes=PART)
    return BucketTarget("gs", bucket, prefix, store=gcs, policy=policy)


def prepared(folder: Path, seed: int, *, rows: int = ROWS) -> Publication:
    """Generation `seed`, ready to be published as `items`."""
    vectors, ids = folder / f"{seed}.npy", folder / f"{seed}.ids.npy"
    np.save(vectors, unit_rows(rows, DIM, seed=seed).astype(np.float32))
    np.save(ids, np.arange(rows) + 1000 * seed)
    found = prepare(
        str(vectors),
        ids=str(ids),
        masks={},
        name="items",
        layout="rows",
        dim=None,
        metric="cosine",
        progress=_silent,
    )
    assert not isinstance(found, Inspection)
    return found


def _silent(_doing: str, _done: int, _total: int) -> None:
    """No bar."""


def publishing(target: BucketTarget, publication: Publication, *, keep: int | None = None) -> Iterator[Step]:
    return publish(publication, target, keep=keep, dry_run=False, progress=_silent)


def manifest_of(server: ObjectServer, prefix: str) -> dict[str, Any]:
    """What is published; every object it names is there and is the one it tells of."""
    manifest: dict[str, Any] = json.loads(server.get(f"{prefix}items.json"))
    for part, digest in manifest["sha256"].items():
        assert digest == hashlib.sha256(server.get(f"{prefix}{manifest[part]}")).hexdigest()
    return manifest


def load(index: IndexSettings, stores_settings: StoresSettings) -> LoadedIndex:
    """What the service would serve."""
    stores = Stores(stores_settings, policy=COMMAND_LINE)
    pipeline = Pipeline(storage=stores, factory=NumpyDevice(), admission=Admission(memory()))
    try:
        loaded = pipeline.load(
            LoadJob(
                name="items",
                settings=index,
                sources=pipeline.look(index),
                served=None,
                reuse=None,
                cancelled=lambda: False,
                report=lambda *_: None,
            )
        )
    finally:
        stores.close()
    assert isinstance(loaded, LoadedIndex)
    loaded.engine.close()
    return loaded


def test_what_is_published_can_be_loaded(tmp_path: Path, server: ObjectServer, prefix: str) -> None:
    """The command line, the lines it prints, the objects, and a load of them: vectors with their ids."""
    publication, settings = prepared(tmp_path, 1), server.settings()
    (tmp_path / "kosine.yaml").write_text(
        configuration.dump(Settings(service=ServiceSettings(stores=settings)))
    )
    place = f"{server.kind}://{BUCKET}/{prefix}"
    arguments = ["publish", publication.vectors.path, place, "--ids", f"{tmp_path}/1.ids.npy"]
    options = ["--name", "items", "--config", f"{tmp_path}/kosine.yaml"]
    done = CliRunner().invoke(main, [*arguments, *options])
    assert 0 == done.exit_code, done.output
    assert {"vectors", "ids"} == set(manifest_of(server, prefix)["sha256"])
    assert f'uri: "{place}items.json"' in done.output
    loaded = load(IndexSettings(uri=f"{place}items.json"), settings)
    assert (ROWS, 1007) == (loaded.info.rows, *loaded.ids.names(np.array([7], np.int32)))


def test_the_same_content_is_written_once(tmp_path: Path, target: BucketTarget) -> None:
    """Published again nothing is written; a rollback writes the manifest only."""
    old, new = prepared(tmp_path, 1), prepared(tmp_path, 2)
    assert ["wrote"] * 3 == [step.did for step in publishing(target, old)]
    assert ["kept"] * 3 == [step.did for step in publishing(target, old)]
    assert ["wrote"] * 3 == [step.did for step in publishing(target, new)]
    assert ["kept", "kept", "wrote"] == [step.did for step in publishing(target, old)]


@pytest.mark.parametrize("rows", [PART // 20 - 10, 2 * PART // 20 - 6, 3 * PART // 20])
def test_a_large_object_appears_at_one_moment(
    rows: int, tmp_path: Path, server: ObjectServer, target: BucketTarget, prefix: str
) -> None:
    """Parts become the object when all are there, whatever its length; the digest is that of the whole."""
    list(publishing(target, prepared(tmp_path, 3, rows=rows)))
    assert rows == manifest_of(server, prefix)["rows"]


def test_a_large_file_that_changes_leaves_nothing(server: ObjectServer, target: BucketTarget) -> None:
    """Parts that were sent are given up with it, even where the last byte tells."""

    def breaking() -> Iterator[memoryview]:
        yield memoryview(bytes(2 * PART))
        raise InterruptedError

    for size in (2 * PART, 3 * PART):
        with pytest.raises(InterruptedError):
            target.put("items.npy", breaking(), size=size, name="items")
        assert target.size("items.npy") is None
    if server.kind == "s3":
        assert b"<Upload>" not in server.send("GET", f"/{BUCKET}?uploads=")


def test_an_object_whose_name_lies_is_not_used(
    tmp_path: Path, comparing: ObjectServer, target: BucketTarget, prefix: str
) -> None:
    """Nobody overwrites an object: it is named, and what serves does not change."""
    publication = prepared(tmp_path, 1)
    comparing.put(f"{prefix}{publication.vectors.file}", b"damaged")
    with pytest.raises(StartupError, match="has other content than its name says; remove it"):
        list(publishing(target, publication))
    assert target.manifest("items") is None


@pytest.mark.usefixtures("comparing")
def test_a_write_whose_answer_was_lost_is_recognised(tmp_path: Path, target: BucketTarget) -> None:
    """Asked again, the store refuses; what is there is what was to be written, so all is well."""
    for sizes in ((10,), (PART, PART, 10)):
        chunks, size = [memoryview(bytes(size)) for size in sizes], sum(sizes)
        target.put(f"items-{size}.npy", chunks, size=size, name="items")
        target.put(f"items-{size}.npy", chunks, size=size, name="items")
    first = prepared(tmp_path, 1).manifest()
    target.commit("items", first, replacing=target.manifest("items"))
    target._seen.clear()
    target.commit("items", first, replacing=None)
    assert first == target.manifest("items")


def test_a_large_upload_goes_on_after_a_failure(
    request: pytest.FixtureRequest, tmp_path: Path, server: ObjectServer, prefix: str
) -> None:
    """A part that was refused, or taken without our hearing of it, does not end the upload."""
    if request.node.callspec.params["server"] == "fake_gcs":
        pytest.skip("fake-gcs-server takes the question how much has arrived for the end of the upload")

    def of_upload(request: Request) -> bool:
        return "uploadId=" in request.target or "upload_id=" in request.target

    # The last of them is the answer to what completes it.
    faults = [None, Fault(status=503), Fault(lost=True), None, None, Fault(lost=True)]
    with fault_proxy(server.endpoint) as proxy:
        proxy.script = in_turn(*faults, when=of_upload)
        with contextlib.closing(target_at(server, prefix, endpoint=proxy.endpoint)) as target:
            list(publishing(target, prepared(tmp_path, 3, rows=3 * PART // 20)))
    assert 3 * PART // 20 == manifest_of(server, prefix)["rows"]


def test_every_write_says_what_it_replaces(tmp_path: Path, server: ObjectServer, prefix: str) -> None:
    """An object only where there is none; the manifest only in the place of the one that was read."""
    with fault_proxy(server.endpoint) as proxy:
        with contextlib.closing(target_at(server, prefix, endpoint=proxy.endpoint)) as target:
            for seed in (1, 2):
                list(publishing(target, prepared(tmp_path, seed, rows=2 * PART // 20)))
        seen = proxy.seen()
    conditions = [
        re.search(r"ifGenerationMatch=(\d+)", one.target) if server.kind == "gs" else _condition(one)
        for one in seen
        if (one.method == "POST" if server.kind == "gs" else _makes_object(one))
    ]
    absent, replaced = {"*", "ifGenerationMatch=0"}, 0
    for condition in conditions:
        assert condition is not None
        replaced += condition[0] not in absent
    assert (6, 1) == (len(conditions), replaced)


def _makes_object(request: Request) -> bool:
    """Of S3: a part makes none, its completion does."""
    completes = request.method == "POST" and "uploadId=" in request.target
    return completes or (request.method == "PUT" and "uploadId=" not in request.target)


def _condition(request: Request) -> tuple[str] | None:
    found = request.headers.get("if-none-match") or request.headers.get("if-match")
    return (found,) if found is not None else None


def test_whose_manifest_comes_second_is_told(
    tmp_path: Path, comparing: ObjectServer, target: BucketTarget, other: BucketTarget, prefix: str
) -> None:
    """Both have read the same manifest, or none; the first to replace it wins, and stays."""
    before: Publication | None = None
    for seed in (1, 2, 3):
        winner, loser = prepared(tmp_path, 10 * seed), prepared(tmp_path, 10 * seed + 1)
        steps = [publishing(target, winner), publishing(other, loser)]
        for one in steps:
            next(one)
        if before is not None:
            assert before.vectors.file == manifest_of(comparing, prefix)["vectors"]
        list(steps[0])
        with pytest.raises(PublishConflict, match="another publisher was faster"):
            list(steps[1])
        assert winner.vectors.file == manifest_of(comparing, prefix)["vectors"]
        before = winner


@pytest.mark.usefixtures("comparing")
def test_of_two_publishers_one_wins_and_the_other_knows(target: BucketTarget, other: BucketTarget) -> None:
    """10 races from the manifest that both have read: exactly one is told that it won, and it has."""
    for race in range(10):
        barrier, won = threading.Barrier(2), []

        def commit(one: BucketTarget, content: bytes, replacing: bytes | None) -> None:
            barrier.wait()  # noqa: B023
            try:
                one.commit("items", content, replacing=replacing)
            except PublishConflict:
                return
            won.append(content)  # noqa: B023

        racers = [
            threading.Thread(target=commit, args=(one, f"{race} {number}".encode(), one.manifest("items")))
            for number, one in enumerate((target, other))
        ]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert [target.manifest("items")] == won


@pytest.mark.parametrize("answer", [Fault(status=503), Fault(lost=True)], ids=["before", "after"])
def test_a_publisher_that_ends_anywhere_leaves_what_was_published(
    answer: Fault, tmp_path: Path, server: ObjectServer, target: BucketTarget, prefix: str
) -> None:
    """From any request on it is heard of no more: the old pair is named, or the new one, complete."""
    old, new = prepared(tmp_path, 1), prepared(tmp_path, 2, rows=PART // 20 + 10)
    list(publishing(target, old))
    named: list[str] = []
    with (
        fault_proxy(server.endpoint) as proxy,
        contextlib.closing(target_at(server, prefix, endpoint=proxy.endpoint, attempts=1)) as ending,
    ):
        for heard in range(40):
            proxy.seen()
            proxy.script = lambda _, heard=heard: answer if len(proxy.requests) > heard else None  # type: ignore[misc]
            with contextlib.suppress(StartupError, LoadError, PublishConflict):
                list(publishing(ending, new))
            named.append(manifest_of(server, prefix)["vectors"])
            if named[-1] == new.vectors.file:
                break
    assert {old.vectors.file, new.vectors.file} == set(named)
    assert len(named) > 5
    assert ["kept"] * 3 == [step.did for step in publishing(target, new)]


def test_a_bucket_that_is_not_there_is_told(tmp_path: Path, server: ObjectServer) -> None:
    """Exit code 2 with what the store answered; no secret in it."""
    said = f"cannot publish to {server.kind}://no-such-bucket/"
    with (
        contextlib.closing(target_at(server, "", bucket="no-such-bucket")) as target,
        pytest.raises(StartupError, match=said) as refused,
    ):
        list(publishing(target, prepared(tmp_path, 1)))
    assert "secret" not in refused.value.detail


# ---- old versions ----


def later(server: ObjectServer, target: BucketTarget, prefix: str) -> None:
    """Return when the store's clock, which may count in whole seconds, has moved on."""
    server.put(f"{prefix}clock", b"first")
    first = _written(target)
    deadline = time.monotonic() + 10
    while _written(target) == first:
        assert time.monotonic() < deadline
        server.put(f"{prefix}clock", random.randbytes(8))


def _written(target: BucketTarget) -> float:
    return next(one.modified for one in target.listing() if one.file == "clock")


def test_old_versions_are_removed_when_asked(
    tmp_path: Path, server: ObjectServer, target: BucketTarget, prefix: str
) -> None:
    """What is served, the newest and what any manifest there names stay; nothing else is touched."""
    publications = [prepared(tmp_path, seed) for seed in range(4)]
    for publication in publications:
        if publication in publications[3:]:
            later(server, target, prefix)
        list(publishing(target, publication))
    later(server, target, prefix)
    server.put(f"{prefix}pinned.json", json.dumps({"vectors": publications[0].vectors.file}).encode())
    server.put(f"{prefix}items-notes.npy", b"mine")
    below = f"{prefix}below/{publications[1].vectors.file}"
    server.put(below, b"mine")
    # Back to the one before: it and the newest are two.
    steps = list(publishing(target, publications[2], keep=2))
    assert publications[2].vectors.file == manifest_of(server, prefix)["vectors"]
    kept = {publications[0].vectors.file, *_files(publications[2]), *_files(publications[3])}
    others = {"items.json", "pinned.json", "items-notes.npy", "clock", below.removeprefix(prefix)}
    assert kept | others == {key.removeprefix(prefix) for key in server.keys(prefix)}
    removed = {step.file for step in steps if step.did == "removed"}
    assert {*_files(publications[0]), *_files(publications[1])} - kept == removed


def _files(publication: Publication) -> set[str]:
    return {original.file for original in publication.originals}


def test_what_another_publisher_is_writing_is_not_removed(
    tmp_path: Path, comparing: ObjectServer, target: BucketTarget, other: BucketTarget, prefix: str
) -> None:
    """Objects that no manifest names yet are younger than the manifest in force."""
    first, second = prepared(tmp_path, 1), prepared(tmp_path, 2)
    list(publishing(target, first))
    later(comparing, target, prefix)
    writing = publishing(other, second)
    list(itertools.islice(writing, 2))
    assert [] == [step for step in publishing(target, first, keep=1) if step.did == "removed"]
    list(writing)
    assert second.vectors.file == manifest_of(comparing, prefix)["vectors"]


def test_what_was_removed_under_a_publisher_is_written_again(
    tmp_path: Path, server: ObjectServer, target: BucketTarget, prefix: str
) -> None:
    """It relied on an object that was there; once its manifest names it, it is there again."""
    old = prepared(tmp_path, 1)
    for publication in (old, prepared(tmp_path, 2)):
        list(publishing(target, publication))
    steps = publishing(target, old)
    assert ["kept", "kept"] == [step.did for step in itertools.islice(steps, 2)]
    server.delete(f"{prefix}{old.vectors.file}")
    assert ["wrote", "repaired"] == [step.did for step in steps]
    assert old.vectors.file == manifest_of(server, prefix)["vectors"]


def test_a_removal_ends_where_another_manifest_is(
    tmp_path: Path, server: ObjectServer, target: BucketTarget, prefix: str
) -> None:
    """What may go is the decision of whoever published last."""
    publications = [prepared(tmp_path, seed) for seed in range(3)]
    for publication in publications:
        list(publishing(target, publication))
    later(server, target, prefix)
    server.put(f"{prefix}items.json", publications[2].manifest() + b"\n")
    removing = publishing(target, publications[2], keep=1)
    for step in removing:
        if step.did == "removed":
            server.put(f"{prefix}items.json", publications[0].manifest())
            break
    assert [] == list(removing)
