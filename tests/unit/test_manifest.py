"""Manifests: what is read, what is refused, and where a reference may lead."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from kosine import configuration
from kosine.errors import ConfigurationError, LoadCode, LoadError, Stage
from kosine.loading.local import LocalStorage
from kosine.loading.manifest import (
    MAX_BYTES,
    Manifest,
    Manifests,
    Part,
    check_digests,
    check_shape,
    encode_manifest,
    parse_manifest,
    read_manifest,
    resolve,
)
from kosine.source_uri import COMMAND_LINE

if TYPE_CHECKING:
    from pathlib import Path

URI = "s3://shop/items/items.json"
DIGEST = "0" * 64


def test_every_field_is_read() -> None:
    """References lead from the manifest; digests and shape come along."""
    content = {
        "vectors": "items-1.npy",
        "ids": "old/items-1.ids.npy",
        "masks": {"in_stock": "items-1.mask.npy", "new": "old/items-1.mask.npy"},
        "sha256": {"vectors": DIGEST, "ids": "f" * 64, "masks": {"new": "e" * 64}},
        "rows": 3,
        "dim": 2,
    }
    expected = Manifest(
        vectors=Part("s3://shop/items/items-1.npy", DIGEST),
        ids=Part("s3://shop/items/old/items-1.ids.npy", "f" * 64),
        masks={
            "in_stock": Part("s3://shop/items/items-1.mask.npy"),
            "new": Part("s3://shop/items/old/items-1.mask.npy", "e" * 64),
        },
        rows=3,
        dim=2,
    )
    assert expected == parse_manifest(json.dumps(content).encode(), uri=URI)


@pytest.mark.parametrize(
    "content", ['{"vectors": "a.npy"}', '{"vectors": "a.npy", "ids": null, "rows": null}']
)
def test_only_vectors_are_needed(content: str) -> None:
    """A manifest written by hand is one line."""
    assert Manifest(vectors=Part("/data/a.npy")) == parse_manifest(content.encode(), uri="/data/items.json")


@pytest.mark.parametrize("ids", [None, Part("items-2.ids.npy", "f" * 64), Part("items-2.ids.npy")])
def test_what_is_written_is_what_is_read(ids: Part | None) -> None:
    """`encode_manifest` and `parse_manifest` are each other's inverse."""
    masks = {"in_stock": Part("items-3.mask.npy", "e" * 64), "new": Part("items-4.mask.npy")}
    manifest = Manifest(vectors=Part("items-1.npy", DIGEST), ids=ids, masks=masks, rows=3, dim=2)
    assert manifest == parse_manifest(encode_manifest(manifest), uri="items.json")


def of(**fields: object) -> bytes:
    return json.dumps({"vectors": "a.npy", **fields}).encode()


BAD = {
    "nothing": b"",
    "no JSON": b"items.npy",
    "half of one": of()[:-3],
    "two of them": of() + of(),
    "an array": b'["a.npy"]',
    "a text": b'"a.npy"',
    "null": b"null",
    "a number": b"1e999",
    "UTF-16": '{"vectors": "a.npy"}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + of(),
    "broken UTF-8": b'{"vectors": "\xff.npy"}',
    "no vectors": b"{}",
    "vectors twice": b'{"vectors": "a.npy", "vectors": "b.npy"}',
    "digests twice": b'{"vectors": "a.npy", "sha256": {"vectors": "' + b"0" * 64 + b'", "vectors": null}}',
    "an unknown field": of(vector="b.npy"),
    "an unknown digest": of(sha256={"md5": DIGEST}),
    "vectors of another type": of(vectors=1),
    "vectors of null": of(vectors=None),
    "ids of another type": of(ids=["b.npy"]),
    "digests of another type": of(sha256=DIGEST),
    "a short digest": of(sha256={"vectors": DIGEST[1:]}),
    "a digest and a newline": of(sha256={"vectors": DIGEST + "\n"}),
    "a digest in capitals": of(sha256={"vectors": "A" * 64}),
    "a digest of no ids": of(sha256={"ids": DIGEST}),
    "masks of another type": of(masks=["b.npy"]),
    "masks of null": of(masks={"a": None}),
    "a mask without a name": of(masks={"": "b.npy"}),
    "a mask with a bad name": of(masks={"In Stock": "b.npy"}),
    "a mask with a newline": of(masks={"a\n": "b.npy"}),
    "a mask elsewhere": of(masks={"a": "../b.npy"}),
    "too many masks": of(masks={f"m{number}": "b.npy" for number in range(17)}),
    "a digest of no mask": of(masks={"a": "b.npy"}, sha256={"masks": {"b": DIGEST}}),
    "a mask twice": b'{"vectors": "a.npy", "masks": {"a": "b.npy", "a": "c.npy"}}',
    "no rows": of(rows=0),
    "rows as text": of(rows="3"),
    "rows as a fraction": of(rows=3.5),
    "rows as a truth": of(rows=True),
    "a negative dim": of(dim=-1),
    "an endless number": b'{"vectors": "a.npy", "rows": ' + b"9" * 5000 + b"}",
    "endless arrays": b"[" * 20_000,
    "endless objects": b'{"vectors":' * 5_000,
    "too long": of() + b" " * MAX_BYTES,
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    """One code, and a text of a bounded length, whatever it is."""
    with pytest.raises(LoadError) as refused:
        parse_manifest(content, uri=URI)
    assert (LoadCode.BAD_MANIFEST, Stage.GATE) == (refused.value.code, refused.value.stage)
    assert len(refused.value.detail) < 500


@pytest.mark.parametrize(
    ("reference", "manifest", "leads_to"),
    [
        ("a.npy", "s3://shop/items.json", "s3://shop/a.npy"),
        ("a.npy", "gs://shop/x/items.json", "gs://shop/x/a.npy"),
        ("deep/er/a.npy", "/data/items.json", "/data/deep/er/a.npy"),
        ("/data/v1/a.npy", "/data/items.json", "/data/v1/a.npy"),
        ("s3://shop/x/v1/a.npy", "s3://shop/x/items.json", "s3://shop/x/v1/a.npy"),
        ("a b+c=d@e,é.npy", "/data/items.json", "/data/a b+c=d@e,é.npy"),
        ("a..b...npy", "/data/items.json", "/data/a..b...npy"),
        ("a.npy", "items.json", "a.npy"),
        ("a.npy", "/items.json", "/a.npy"),
    ],
)
def test_a_reference_leads_to_the_folder_of_its_manifest(
    reference: str, manifest: str, leads_to: str
) -> None:
    """Relative to the manifest, or absolute and still below its folder."""
    assert leads_to == resolve(reference, manifest=manifest)


ESCAPING = [
    *("", "/", ".npy/", "items", "items.json", "a.NPY", "a.npy/", "a.npy\n", "x" * 2000 + ".npy"),
    *(
        "../a.npy",
        "v1/../../a.npy",
        "./a.npy",
        "v1/./a.npy",
        "v1//a.npy",
        "/a.npy",
        "//host/a.npy",
        "..//a.npy",
    ),
    *(
        "/etc/a.npy",
        "/data/other/a.npy",
        "/data/items/../a.npy",
        "/data/itemsX/a.npy",
        "~/a.npy",
        "~root/a.npy",
    ),
    *("s3://shop/a.npy", "s3://shop/itemsX/a.npy", "s3://other/items/a.npy", "s3://shop/items/../a.npy"),
    *("s3://shop/items//a.npy", "S3://shop/items/a.npy", "s3:a.npy", "gs://shop/items/a.npy"),
    *("http://169.254.169.254/a.npy", "file:///etc/a.npy", "file:a.npy", "data:a.npy", "c:/a.npy"),
    *("a\\b.npy", "..\\a.npy", "%2e%2e/a.npy", "a%00.npy", "a\0.npy", "a\r\nHost: x.npy", "a\ud800.npy"),
    *(
        "a?version=1.npy",
        "a.npy?x",
        "a#b.npy",
        "*.npy",
        "[ab].npy",
        "{a,b}.npy",
        "zip://a.npy::s3://shop/b.npy",
    ),
    *("a|b.npy", "<a.npy", '"a".npy'),
]


@pytest.mark.parametrize("reference", ESCAPING, ids=ascii)
@pytest.mark.parametrize("manifest", ["/data/items/items.json", URI])
def test_a_reference_leads_nowhere_else(reference: str, manifest: str) -> None:
    """Another scheme, host, bucket or folder, a glob, an escape or a chain: `bad_manifest`."""
    content = json.dumps({"vectors": "a.npy", "ids": reference}).encode()
    with pytest.raises(LoadError) as refused:
        parse_manifest(content, uri=manifest)
    assert LoadCode.BAD_MANIFEST is refused.value.code
    assert refused.value.detail.isprintable()
    assert len(refused.value.detail) < 600


def test_a_manifest_tells_which_files_it_means() -> None:
    """Equal digests pass, others are `digest_mismatch` at CHECK; what is not told is not compared."""
    right, wrong = hashlib.sha256(b"right").digest(), hashlib.sha256(b"wrong").digest()
    both = Manifest(vectors=Part("a.npy", right.hex()), ids=Part("b.npy", right.hex()))
    check_digests(both, vectors=right, ids=right)
    check_digests(Manifest(vectors=Part("a.npy"), ids=Part("b.npy")), vectors=wrong, ids=wrong)
    for vectors, ids, name in ((wrong, right, "a.npy"), (right, wrong, "b.npy")):
        with pytest.raises(LoadError, match=f"{name}: expected SHA-256 {right.hex()}") as refused:
            check_digests(both, vectors=vectors, ids=ids)
        assert (LoadCode.DIGEST_MISMATCH, Stage.CHECK) == (refused.value.code, refused.value.stage)


@pytest.mark.parametrize(("rows", "dim", "good"), [(3, 2, True), (4, 2, False), (3, 1, False)])
def test_a_shape_that_is_told_is_checked(rows: int, dim: int, good: bool) -> None:
    """A manifest that tells another shape than its vectors have is refused before they are read."""
    manifest = Manifest(vectors=Part("a.npy"), rows=3, dim=2)
    check_shape(Manifest(vectors=Part("a.npy")), rows=rows, dim=dim)
    if good:
        check_shape(manifest, rows=rows, dim=dim)
        return
    with pytest.raises(LoadError, match="publish both again") as refused:
        check_shape(manifest, rows=rows, dim=dim)
    assert (LoadCode.BAD_MANIFEST, Stage.GATE) == (refused.value.code, refused.value.stage)


def test_a_big_manifest_is_not_read(tmp_path: Path) -> None:
    """Its size is looked at first."""
    path = tmp_path / "items.json"
    path.write_bytes(of() + b" " * MAX_BYTES)
    storage = LocalStorage(COMMAND_LINE)
    with pytest.raises(LoadError, match="expected at most 65536 bytes") as refused:
        read_manifest(storage, str(path), storage.fingerprint(str(path)))
    assert LoadCode.BAD_MANIFEST is refused.value.code


def test_only_what_has_settled_is_remembered(tmp_path: Path) -> None:
    """A glance reads each time until a load has read the same; a load that finds another is begun again."""
    path = tmp_path / "items.json"
    path.write_bytes(of())
    opened: list[str] = []

    class Counting(LocalStorage):
        def open(self, uri: str, fingerprint):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            opened.append(uri)
            return super().open(uri, fingerprint)

    storage = Counting(COMMAND_LINE)
    manifests, fingerprint = Manifests(), storage.fingerprint(str(path))
    seen = manifests.glance(storage, str(path), fingerprint)
    assert (seen, 2) == (manifests.glance(storage, str(path), fingerprint), len(opened))
    with pytest.raises(LoadError) as refused:
        manifests.read(storage, str(path), fingerprint, seen=None)
    assert LoadCode.CHANGED_WHILE_READING is refused.value.code
    assert (seen, 3) == (manifests.read(storage, str(path), fingerprint, seen=seen), len(opened) - 1)
    assert (seen, 4) == (manifests.glance(storage, str(path), fingerprint), len(opened))


def test_ids_beside_a_manifest_are_a_wrong_configuration() -> None:
    """One place says where the ids are."""
    with pytest.raises(ConfigurationError, match=r"indexes.items: expected no ids beside a manifest"):
        configuration.parse("indexes: {items: {uri: items.json, ids: ids.npy}}")
    assert configuration.parse("indexes: {items: {uri: items.json}}").indexes["items"].has_manifest
