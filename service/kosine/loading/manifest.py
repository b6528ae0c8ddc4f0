"""Manifests: a small JSON file that names vectors, ids and masks, so that they are one unit.

    {"vectors": "items-9f86.npy", "ids": "items-6030.ids.npy", "sha256": {"vectors": "...", "ids": "..."}}

Two files cannot be replaced at one moment; a manifest can. The files it names are never written to again, so
whoever reads one manifest gets one set, and a mix of two publications cannot be served. References lead to
the manifest's own folder or below and nowhere else: who may write a manifest may not choose what is read.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.source import read_whole
from kosine.settings import MASK_NAME_PATTERN, MAX_MASKS

if TYPE_CHECKING:
    from kosine.loading.source import Fingerprint, Storage

__all__ = (
    "MAX_BYTES",
    "Manifest",
    "Manifests",
    "Part",
    "check_digests",
    "check_mask_digest",
    "check_shape",
    "encode_manifest",
    "parse_manifest",
    "read_manifest",
    "resolve",
)

MAX_BYTES = 64 * 2**10

_MAX_REFERENCE = 1024
_REFUSED = frozenset('\\%?#*[]{}|"<>')
"""Globs, escapes and the separators of URLs: they mean something else in some store."""
_SHOWN = 200

_Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Count = Annotated[int, Meta(ge=1)]


@dataclass(frozen=True, slots=True)
class Part:
    """One file that a manifest names."""

    uri: str
    """Where it is; in a manifest to be written: relative to it."""
    sha256: str | None = None
    """Of all its bytes, in hex."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What belongs together; `rows` and `dim` are checked where they are told."""

    vectors: Part
    ids: Part | None = None
    masks: dict[str, Part] = field(default_factory=dict)
    rows: int | None = None
    dim: int | None = None


class _Digests(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    vectors: _Sha256 | None = None
    ids: _Sha256 | None = None
    masks: dict[str, _Sha256] = msgspec.field(default_factory=dict)


class _Wire(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A manifest as it is written."""

    vectors: str
    ids: str | None = None
    masks: Annotated[dict[str, str], Meta(max_length=MAX_MASKS)] = msgspec.field(default_factory=dict)
    sha256: _Digests | None = None
    rows: _Count | None = None
    dim: _Count | None = None


def parse_manifest(content: bytes, *, uri: str) -> Manifest:
    """The manifest at `uri` with its references resolved. LoadError `bad_manifest` at GATE."""
    if len(content) > MAX_BYTES:
        raise _bad(uri, f"expected at most {MAX_BYTES} bytes, got {len(content)}")
    try:
        plain = json.loads(content.decode(), object_pairs_hook=_without_duplicates)
        wire = msgspec.convert(plain, _Wire)
    except RecursionError:
        raise _bad(uri, "it is nested too deeply") from None
    except ValueError as error:  # of the encoding, of JSON, and of a field
        raise _bad(uri, _clipped(str(error))) from None
    try:
        return _resolved(wire, wire.sha256 or _Digests(), uri=uri)
    except ValueError as error:
        raise _bad(uri, str(error)) from None


def _resolved(wire: _Wire, digests: _Digests, *, uri: str) -> Manifest:
    if digests.ids is not None and wire.ids is None:
        raise ValueError("sha256 tells of ids, and no ids are named")
    if unnamed := digests.masks.keys() - wire.masks.keys():
        raise ValueError(f"sha256 tells of masks that are not named: {_clipped(ascii(sorted(unnamed)))}")
    for name in wire.masks:
        if not re.fullmatch(MASK_NAME_PATTERN, name):
            raise ValueError(
                "expected names of masks as 1 to 63 of a-z, 0-9, and inner hyphens or underscores, "
                f"got {_clipped(ascii(name))}"
            )
    return Manifest(
        vectors=Part(resolve(wire.vectors, manifest=uri), digests.vectors),
        ids=Part(resolve(wire.ids, manifest=uri), digests.ids) if wire.ids is not None else None,
        masks={
            name: Part(resolve(each, manifest=uri), digests.masks.get(name))
            for name, each in wire.masks.items()
        },
        rows=wire.rows,
        dim=wire.dim,
    )


def encode_manifest(manifest: Manifest) -> bytes:
    """A manifest as it is written; what `parse_manifest` makes of it is `manifest`, resolved."""
    ids, masks = manifest.ids, manifest.masks
    wire = _Wire(
        vectors=manifest.vectors.uri,
        ids=ids.uri if ids is not None else None,
        masks={name: part.uri for name, part in masks.items()},
        sha256=_Digests(
            manifest.vectors.sha256,
            ids.sha256 if ids is not None else None,
            {name: part.sha256 for name, part in masks.items() if part.sha256 is not None},
        ),
        rows=manifest.rows,
        dim=manifest.dim,
    )
    return msgspec.json.format(msgspec.json.encode(wire), indent=2) + b"\n"


def resolve(reference: str, *, manifest: str) -> str:
    """Where `reference` leads from the manifest at that URI or path; ValueError says why it may not.

    >>> resolve("items-1.npy", manifest="s3://shop/items/items.json")
    's3://shop/items/items-1.npy'
    >>> resolve("/data/items/1/rows.npy", manifest="/data/items/items.json")
    '/data/items/1/rows.npy'
    """
    folder = manifest[: manifest.rfind("/") + 1]
    below = reference.removeprefix(folder)
    if not below.endswith(".npy") or len(below) > _MAX_REFERENCE:
        raise ValueError(f"expected the name of an .npy file, got {_clipped(repr(reference))}")
    if not _REFUSED.isdisjoint(below) or any(unicodedata.category(each) in {"Cc", "Cs"} for each in below):
        raise ValueError(
            f"expected a name without {' '.join(sorted(_REFUSED))}, got {_clipped(ascii(below))}"
        )
    if ":" in below or below.startswith("~") or not {"", ".", ".."}.isdisjoint(below.split("/")):
        raise ValueError(
            f"expected a file in the folder of the manifest or below, got {_clipped(repr(reference))}; "
            "write it relative to the manifest"
        )
    return folder + below


def read_manifest(storage: Storage, uri: str, fingerprint: Fingerprint) -> Manifest:
    """The manifest that the fingerprint was taken of, whole. LoadError: the storage's, and `bad_manifest`."""
    if fingerprint.size > MAX_BYTES:
        raise _bad(uri, f"expected at most {MAX_BYTES} bytes, got {fingerprint.size}")
    return parse_manifest(read_whole(storage, uri, fingerprint), uri=uri)


class Manifests:
    """A manifest whose fingerprint is known is not read again. Thread-safe."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, Manifest]] = {}

    def glance(self, storage: Storage, uri: str, fingerprint: Fingerprint) -> Manifest:
        """What it says, as far as one look can tell; LoadError as `read_manifest`."""
        token, manifest = self._known.get(uri, ("", None))
        if manifest is not None and token == fingerprint.token:
            return manifest
        return read_manifest(storage, uri, fingerprint)

    def read(
        self, storage: Storage, uri: str, fingerprint: Fingerprint, *, seen: Manifest | None
    ) -> Manifest:
        """What it says, once the fingerprint has settled. LoadError also where it is not what was `seen`.

        Only this is remembered: a glance may have read what another write, in the same tick, replaced.
        """
        manifest = read_manifest(storage, uri, fingerprint)
        if manifest != seen:
            self._known.pop(uri, None)
            raise LoadError(
                LoadCode.CHANGED_WHILE_READING,
                f"{uri} changed after it was looked at; it is read again once it is stable",
                stage=Stage.GATE,
            )
        self._known[uri] = (fingerprint.token, manifest)
        return manifest


def check_shape(manifest: Manifest, *, rows: int, dim: int) -> None:
    """LoadError `bad_manifest` at GATE where the vectors are not of the shape that it tells."""
    for name, told, found in (("rows", manifest.rows, rows), ("dim", manifest.dim, dim)):
        if told is not None and told != found:
            raise LoadError(
                LoadCode.BAD_MANIFEST,
                f"the manifest tells {name} {told}, {manifest.vectors.uri} has {found}; publish both again",
                stage=Stage.GATE,
                expected=told,
                got=found,
            )


def check_digests(manifest: Manifest, *, vectors: bytes, ids: bytes) -> None:
    """LoadError `digest_mismatch` at CHECK where a file is not the one the manifest tells of."""
    _check_digest(manifest.vectors, vectors.hex())
    if manifest.ids is not None:
        _check_digest(manifest.ids, ids.hex())


def check_mask_digest(manifest: Manifest, name: str, found: str) -> None:
    """As `check_digests`, of one mask; `found` in hex."""
    _check_digest(manifest.masks[name], found)


def _check_digest(part: Part, found: str) -> None:
    if part.sha256 is not None and part.sha256 != found:
        raise LoadError(
            LoadCode.DIGEST_MISMATCH,
            f"{part.uri}: expected SHA-256 {part.sha256}, got {found}; publish again, "
            "and never write to a file that a manifest names",
            stage=Stage.CHECK,
            expected=part.sha256,
            got=found,
        )


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field is there twice")
    return fields


def _bad(uri: str, detail: str) -> LoadError:
    return LoadError(
        LoadCode.BAD_MANIFEST,
        f'{uri} is no good manifest: {detail}; expected {{"vectors": "NAME.npy"}}, and if you like "ids", '
        '"masks", "sha256", "rows" and "dim", as `kosine publish` writes them',
        stage=Stage.GATE,
    )


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
