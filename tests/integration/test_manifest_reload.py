"""An index that is named by a manifest: vectors and ids are swapped together or not at all (N10)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from kosine.loading.admission import Admission
from kosine.loading.local import LocalStorage
from kosine.loading.manifest import Manifest, Part, encode_manifest
from kosine.loading.pipeline import Pipeline
from kosine.source_uri import COMMAND_LINE
from tests.kit.engines import NumpyDevice
from tests.kit.loads import index_settings, memory, rig
from tests.kit.npy_files import npy_bytes, unit_rows
from tests.kit.writers import put_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kosine.loading.source import Fingerprint

ROWS, DIM = 50, 6


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """Events instead of lines."""
    with capture_logs() as events:
        yield events


def write(folder: Path, seed: int, *, rows: int = ROWS) -> Manifest:
    """The files of generation `seed`, whose ids begin at 1000 * seed, and what a manifest says of them."""
    vectors = npy_bytes(unit_rows(rows, DIM, seed=seed).astype(np.float32))
    ids = npy_bytes(np.arange(rows) + 1000 * seed)
    (folder / f"v{seed}.npy").write_bytes(vectors)
    (folder / f"v{seed}.ids.npy").write_bytes(ids)
    return Manifest(
        vectors=Part(f"v{seed}.npy", hashlib.sha256(vectors).hexdigest()),
        ids=Part(f"v{seed}.ids.npy", hashlib.sha256(ids).hexdigest()),
        rows=rows,
        dim=DIM,
    )


def name(folder: Path, content: bytes) -> None:
    """Put a manifest in place."""
    put_whole(folder / "items.json", content)


async def test_vectors_and_ids_are_swapped_together(tmp_path: Path) -> None:
    """Answers carry the ids of the generation whose vectors they were found in, of any length."""
    async with rig() as service:
        name(tmp_path, encode_manifest(write(tmp_path, 0)))
        await service.apply(items=index_settings(tmp_path / "items.json"))
        for seed in range(4):
            name(tmp_path, encode_manifest(write(tmp_path, seed, rows=ROWS + seed)))
            await service.registry.until(lambda: len(service.registry.published) > seed)  # noqa: B023
            if seed:
                answer = await service.ask("items", unit_rows(ROWS + seed, DIM, seed=seed)[7])
                assert [1000 * seed + 7] == answer.ids
        assert service.error() is None


async def test_a_manifest_is_watched(tmp_path: Path) -> None:
    """With a poll of an hour a published pair is served as soon as it has settled."""
    async with rig() as service:
        name(tmp_path, encode_manifest(write(tmp_path, 0)))
        await service.apply(items=index_settings(tmp_path / "items.json", watch=True, interval=3600))
        for seed in (1, 2, 3):
            await service.registry.until(lambda: len(service.registry.published) >= seed)  # noqa: B023
            name(tmp_path, encode_manifest(write(tmp_path, seed)))
        await service.registry.until(lambda: len(service.registry.published) == 4)


async def test_files_that_no_manifest_names_change_nothing(tmp_path: Path) -> None:
    """Until the manifest is there, nothing is there; the next pair may be written beside the one served."""
    async with rig() as service:
        await service.apply(items=index_settings(tmp_path / "items.json"))
        first = write(tmp_path, 0)
        await service.registry.until(lambda: service.error() == ("source_missing", "fingerprint"))
        name(tmp_path, encode_manifest(first))
        await service.registry.until(lambda: service.serves() is not None)
        served = service.serves()
        write(tmp_path, 1)
        assert "unchanged" == (await service.catalog.force("items")).outcome
        assert served == service.serves()


def torn(_folder: Path, manifest: Manifest) -> bytes:
    return encode_manifest(manifest)[:-20]


def of_another_file(folder: Path, manifest: Manifest) -> bytes:
    (folder / manifest.vectors.uri).write_bytes(npy_bytes(unit_rows(ROWS, DIM, seed=9)))
    return encode_manifest(manifest)


def of_other_ids(folder: Path, manifest: Manifest) -> bytes:
    assert manifest.ids is not None
    (folder / manifest.ids.uri).write_bytes(npy_bytes(np.arange(ROWS)))
    return encode_manifest(manifest)


def of_another_shape(_folder: Path, manifest: Manifest) -> bytes:
    return encode_manifest(Manifest(vectors=manifest.vectors, ids=manifest.ids, rows=ROWS, dim=DIM + 1))


def of_a_missing_file(folder: Path, manifest: Manifest) -> bytes:
    (folder / manifest.vectors.uri).unlink()
    return encode_manifest(manifest)


def escaping(folder: Path, manifest: Manifest) -> bytes:
    (folder.parent / "outside.npy").write_bytes((folder / manifest.vectors.uri).read_bytes())
    return encode_manifest(Manifest(vectors=Part("../outside.npy"), ids=manifest.ids))


@pytest.mark.parametrize(
    ("spoil", "code", "stage"),
    [
        (torn, "bad_manifest", "gate"),
        (of_another_file, "digest_mismatch", "check"),
        (of_other_ids, "digest_mismatch", "check"),
        (of_another_shape, "bad_manifest", "gate"),
        (of_a_missing_file, "source_missing", "fingerprint"),
        (escaping, "bad_manifest", "gate"),
    ],
)
@pytest.mark.parametrize("policy", ["availability_preserving", "resource_preserving"])
async def test_a_manifest_that_does_not_hold_changes_nothing(
    spoil: Callable[[Path, Manifest], bytes], code: str, stage: str, policy: str, tmp_path: Path
) -> None:
    """N10: the old pair serves on, the status says why, and the next good manifest is taken."""
    folder = tmp_path / "items"
    folder.mkdir()
    async with rig() as service:
        name(folder, encode_manifest(write(folder, 0)))
        await service.apply(items=index_settings(folder / "items.json", policy=policy))
        await service.registry.until(lambda: service.serves() is not None)
        served = service.serves()

        name(folder, spoil(folder, write(folder, 1)))
        await service.registry.until(lambda: service.error() is not None)
        assert (code, stage) == service.error()
        assert served == service.serves()
        answer = await service.ask("items", unit_rows(ROWS, DIM, seed=0)[7])
        assert [7] == answer.ids

        name(folder, encode_manifest(write(folder, 2)))
        await service.registry.until(lambda: service.serves() not in (served, None))
        assert service.error() is None


async def test_a_corrected_manifest_of_the_same_files_is_taken(tmp_path: Path) -> None:
    """The fingerprint is the manifest's too, not only that of the files."""
    good = write(tmp_path, 0)
    async with rig() as service:
        name(tmp_path, encode_manifest(Manifest(vectors=Part(good.vectors.uri, "0" * 64), ids=good.ids)))
        await service.apply(items=index_settings(tmp_path / "items.json"))
        await service.registry.until(lambda: service.error() == ("digest_mismatch", "check"))
        name(tmp_path, encode_manifest(good))
        await service.registry.until(lambda: service.serves() is not None)
        assert service.error() is None


def test_a_look_between_two_publications_sees_the_newer(tmp_path: Path) -> None:
    """Files of the old manifest that are gone once the new one is in place are not reported missing."""
    name(tmp_path, encode_manifest(write(tmp_path, 0)))

    class Overtaken(LocalStorage):
        def fingerprint(self, uri: str) -> Fingerprint:
            if uri.endswith("v0.npy"):
                name(tmp_path, encode_manifest(write(tmp_path, 1)))
                (tmp_path / "v0.npy").unlink()
            return super().fingerprint(uri)

    pipeline = Pipeline(storage=Overtaken(COMMAND_LINE), factory=NumpyDevice(), admission=Admission(memory()))
    seen = pipeline.look(index_settings(tmp_path / "items.json")).named
    assert seen is not None
    assert str(tmp_path / "v1.npy") == seen.vectors.uri


async def test_a_bad_manifest_is_reported_once(tmp_path: Path, logged: list[Any]) -> None:
    """It settles and fails like any bad file; polls do not repeat it."""
    async with rig() as service:
        name(tmp_path, b"{}")
        await service.apply(items=index_settings(tmp_path / "items.json"))
        await service.registry.until(lambda: service.error() is not None)
        for _ in range(5):
            looked = service.registry.load_status("items").checked_at
            await service.registry.until(
                lambda: service.registry.load_status("items").checked_at != looked  # noqa: B023
            )
        assert 1 == sum(event["event"] == "reload_failed" for event in logged)


async def test_the_same_pair_under_another_manifest_is_not_loaded_again(tmp_path: Path) -> None:
    """N20: what serves is known by its files, not by the manifest that names them."""
    async with rig() as service:
        content = encode_manifest(write(tmp_path, 0))
        name(tmp_path, content)
        await service.apply(items=index_settings(tmp_path / "items.json"))
        await service.registry.until(lambda: service.serves() is not None)
        name(tmp_path, content + b"\n")
        assert "unchanged" == (await service.catalog.force("items")).outcome
        assert 1 == len(service.registry.published)
