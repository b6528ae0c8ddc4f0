"""`kosine publish` into a bucket, against a real server: conditional writes keep publishers apart."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from kosine.cli import main
from kosine.errors import StartupError
from kosine.loading.admission import Admission
from kosine.loading.inspection import Inspection
from kosine.loading.pipeline import LoadedIndex, LoadJob, Pipeline
from kosine.loading.storage.stores import Stores
from kosine.publishing.publication import Publication, Step, prepare, publish
from kosine.publishing.s3 import S3Target
from kosine.publishing.target import PublishConflict
from kosine.settings import IndexSettings, S3Settings, StoresSettings
from kosine.source_uri import COMMAND_LINE
from tests.kit.engines import NumpyDevice
from tests.kit.loads import memory
from tests.kit.npy_files import unit_rows
from tests.kit.object_stores import BUCKET, ObjectServer, moto_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS, DIM = 40, 5
PART = 5 * 2**20


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectServer]:
    """An S3 server."""
    with moto_server() as running:
        yield running


@pytest.fixture
def settings(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> S3Settings:
    """How to reach it, with credentials from the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "publisher")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return S3Settings(endpoint_url=server.endpoint, region="us-east-1")


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    """A place of its own in the bucket."""
    return f"{tmp_path.name}/"


@pytest.fixture
def target(settings: S3Settings, prefix: str) -> Iterator[S3Target]:
    """One publisher's."""
    one = S3Target(BUCKET, prefix, settings, part_bytes=PART)
    yield one
    one.close()


def prepared(folder: Path, seed: int, *, rows: int = ROWS) -> Publication:
    """Generation `seed`, ready to be published as `items`."""
    vectors, ids = folder / f"{seed}.npy", folder / f"{seed}.ids.npy"
    np.save(vectors, unit_rows(rows, DIM, seed=seed).astype(np.float32))
    np.save(ids, np.arange(rows) + 1000 * seed)
    found = prepare(
        str(vectors), ids=str(ids), name="items", layout="rows", dim=None, metric="cosine", progress=_silent
    )
    assert not isinstance(found, Inspection)
    return found


def _silent(_doing: str, _done: int, _total: int) -> None:
    """No bar."""


def publishing(target: S3Target, publication: Publication) -> Iterator[Step]:
    return publish(publication, target, keep=None, dry_run=False, progress=_silent)


def content(server: ObjectServer, key: str) -> bytes:
    return server.get(key)


def manifest_of(server: ObjectServer, prefix: str) -> dict[str, Any]:
    """What is published; every object it names is there and is the one it tells of."""
    manifest: dict[str, Any] = json.loads(content(server, f"{prefix}items.json"))
    for part, digest in manifest["sha256"].items():
        assert digest == hashlib.sha256(content(server, f"{prefix}{manifest[part]}")).hexdigest()
    return manifest


def test_what_is_published_can_be_loaded(
    tmp_path: Path, server: ObjectServer, settings: S3Settings, prefix: str
) -> None:
    """The command line, the lines it prints, the objects, and a load of them: vectors with their ids."""
    publication = prepared(tmp_path, 1)
    done = CliRunner().invoke(
        main,
        [
            *("publish", publication.vectors.path, f"s3://{BUCKET}/{prefix}", "--name", "items"),
            *("--ids", f"{tmp_path}/1.ids.npy"),
            *("--endpoint-url", server.endpoint, "--region", "us-east-1"),
        ],
    )
    assert 0 == done.exit_code, done.output
    assert {"vectors", "ids"} == set(manifest_of(server, prefix)["sha256"])
    uri = f"s3://{BUCKET}/{prefix}items.json"
    assert f'uri: "{uri}"' in done.output
    loaded = load(IndexSettings(uri=uri), StoresSettings(s3=settings))
    assert loaded.ids is not None
    assert (ROWS, 1007) == (loaded.info.rows, loaded.ids[7])


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


def test_the_same_content_is_written_once(tmp_path: Path, target: S3Target) -> None:
    """Published again nothing is written; a rollback writes the manifest only."""
    old, new = prepared(tmp_path, 1), prepared(tmp_path, 2)
    assert ["wrote"] * 3 == [step.did for step in publishing(target, old)]
    assert ["kept"] * 3 == [step.did for step in publishing(target, old)]
    assert ["wrote"] * 3 == [step.did for step in publishing(target, new)]
    assert ["kept", "kept", "wrote"] == [step.did for step in publishing(target, old)]


@pytest.mark.parametrize("rows", [PART // 20 - 10, PART // 20, 3 * PART // 20])
def test_a_large_object_appears_at_one_moment(
    rows: int, tmp_path: Path, server: ObjectServer, target: S3Target, prefix: str
) -> None:
    """Parts become the object when all are there, whatever its length; the digest is that of the whole."""
    list(publishing(target, prepared(tmp_path, 3, rows=rows)))
    assert rows == manifest_of(server, prefix)["rows"]


def test_a_large_file_that_changes_leaves_nothing(
    tmp_path: Path, server: ObjectServer, target: S3Target, prefix: str
) -> None:
    """Parts that were sent are given up with it."""
    publication = prepared(tmp_path, 4, rows=3 * PART // 20)

    def breaking() -> Iterator[memoryview]:
        yield memoryview(bytes(2 * PART))
        raise InterruptedError

    with pytest.raises(InterruptedError):
        target.put(publication.vectors.file, breaking(), name="items")
    assert target.digest(publication.vectors.file, lambda _: None) is None
    assert b"<Upload>" not in server.send("GET", f"/{BUCKET}?prefix={prefix}&uploads=")


def test_an_object_whose_name_lies_is_not_used(
    tmp_path: Path, server: ObjectServer, target: S3Target, prefix: str
) -> None:
    """Nobody overwrites an object: it is named, and what serves does not change."""
    publication = prepared(tmp_path, 1)
    server.put(f"{prefix}{publication.vectors.file}", b"damaged")
    with pytest.raises(StartupError, match="has other content than its name says; remove it"):
        list(publishing(target, publication))
    assert target.manifest("items") is None


def test_a_write_whose_answer_was_lost_is_recognised(tmp_path: Path, target: S3Target) -> None:
    """Asked again, the store refuses; what is there is what was to be written, so all is well."""
    for sizes in ((10,), (PART, PART, 10)):
        chunks = [memoryview(bytes(size)) for size in sizes]
        target.put(f"items-{len(sizes)}.npy", chunks, name="items")
        target.put(f"items-{len(sizes)}.npy", chunks, name="items")
    first = prepared(tmp_path, 1).manifest()
    target.commit("items", first, replacing=target.manifest("items"))
    target._seen.clear()
    target.commit("items", first, replacing=None)
    assert first == target.manifest("items")


def test_whose_manifest_comes_second_is_told(
    tmp_path: Path, server: ObjectServer, settings: S3Settings, prefix: str
) -> None:
    """Both have read the same manifest, or none; the first to replace it wins, and stays."""
    before: Publication | None = None
    for seed in (1, 2, 3):
        targets = [S3Target(BUCKET, prefix, settings) for _ in range(2)]
        winner, loser = prepared(tmp_path, 10 * seed), prepared(tmp_path, 10 * seed + 1)
        steps = [publishing(targets[0], winner), publishing(targets[1], loser)]
        for one in steps:
            next(one)
        if before is not None:
            assert before.vectors.file == manifest_of(server, prefix)["vectors"]
        list(steps[0])
        with pytest.raises(PublishConflict, match="another publisher was faster"):
            list(steps[1])
        assert winner.vectors.file == manifest_of(server, prefix)["vectors"]
        before = winner
        for one_target in targets:
            one_target.close()


def test_of_two_publishers_one_wins_and_the_other_knows(
    tmp_path: Path, server: ObjectServer, settings: S3Settings, prefix: str
) -> None:
    """20 races: what is published is complete and belongs to one who was told that it won."""
    targets = [S3Target(BUCKET, prefix, settings) for _ in range(2)]
    for first in range(0, 40, 2):
        publications = [prepared(tmp_path, first), prepared(tmp_path, first + 1)]
        barrier, won = threading.Barrier(2), []

        def race(number: int) -> None:
            barrier.wait()  # noqa: B023
            try:
                list(publishing(targets[number], publications[number]))  # noqa: B023
            except PublishConflict:
                return
            won.append(publications[number].vectors.file)  # noqa: B023

        racers = [threading.Thread(target=race, args=(number,)) for number in (0, 1)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert manifest_of(server, prefix)["vectors"] in won
    for target in targets:
        target.close()


def test_a_publisher_that_stops_anywhere_leaves_what_was_published(
    tmp_path: Path, server: ObjectServer, target: S3Target, prefix: str
) -> None:
    """After each step but the last the old pair is what is named."""
    old, new = prepared(tmp_path, 1), prepared(tmp_path, 2)
    list(publishing(target, old))
    for done in (0, 1, 2):
        steps = publishing(target, new)
        for _ in range(done):
            next(steps)
        del steps
        assert old.vectors.file == manifest_of(server, prefix)["vectors"]
    list(publishing(target, new))
    assert new.vectors.file == manifest_of(server, prefix)["vectors"]


def test_a_bucket_that_is_not_there_is_told(tmp_path: Path, settings: S3Settings) -> None:
    """Exit code 2 with what the store answered; no secret in it."""
    target = S3Target("no-such-bucket", "", settings)
    with pytest.raises(StartupError, match="cannot publish to s3://no-such-bucket/") as refused:
        list(publishing(target, prepared(tmp_path, 1)))
    assert "secret" not in refused.value.detail
    target.close()
