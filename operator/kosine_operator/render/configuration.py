"""The file that the service reads: its indexes, and nothing that needs a new process.

What is written here is what `kosine.configuration` loads; a contract test feeds one to the other.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from kosine_operator.pools import Reason, Refusal
from kosine_operator.quantities import size_of
from kosine_operator.render.metadata import pool_metadata
from kosine_operator.resources import CosineServerSpec

if TYPE_CHECKING:
    import msgspec

    from kosine_operator.pools import Pool
    from kosine_operator.render.model import Live, Manifest
    from kosine_operator.resources import CosineIndex

__all__ = ("CLAIMS", "FILE", "FOLDER", "Configuration", "config_map", "configuration_of")

FILE = "kosine.yaml"
FOLDER = "/etc/kosine"
"""Where the ConfigMap is mounted: as a folder, since a mounted file would never change."""
CLAIMS = "/var/lib/kosine/claims"
"""Below it each claim is mounted under its name."""

_CLAIM_SCHEME = "pvc://"
_OWN_FIELDS = ("dim", "metric", "k", "max_k", "max_query_rows", "timeout", "policy", "required", "history")


@dataclass(frozen=True, slots=True)
class Configuration:
    """The text of the file and what follows from it."""

    text: str
    claims: tuple[str, ...]
    """PersistentVolumeClaims that it reads from, by name."""
    refused: tuple[Refusal, ...] = ()

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the file."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def configuration_of(pool: Pool, live: Live) -> Configuration:
    """What the pods of `pool` should serve. Indexes that may not change are as they are in the live file."""
    standing = _entries(live.configuration)
    entries = {name: standing[name] for name in live.unreadable & standing.keys()}
    for index in pool.indexes:
        name = index.metadata.name
        carried = index.spec.paused and name in standing
        entries[name] = standing[name] if carried else _entry(index)
    document: dict[str, Any] = {"indexes": dict(sorted(entries.items()))}
    default, refused = _default_index(pool, entries)
    if default is not None:
        document["default_index"] = default
    text = yaml.safe_dump(document, sort_keys=False, width=110)
    return Configuration(text, _claims(entries), refused)


def config_map(pool: Pool, configuration: Configuration) -> Manifest:
    """The ConfigMap of the pool."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": pool_metadata(pool),
        "data": {FILE: configuration.text},
    }


def _entry(index: CosineIndex) -> dict[str, Any]:
    spec = index.spec
    own = {name: value for name in _OWN_FIELDS if (value := getattr(spec, name)) is not None}
    source = _given(spec.source)
    paths: dict[str, Any] = {name: _located(source[name]) for name in ("uri", "ids") if name in source}
    if "masks" in source:
        paths["masks"] = {name: _located(uri) for name, uri in sorted(source["masks"].items())}
    sections = {
        name: _given(section)
        for name in ("refresh", "batch", "guard", "canary")
        if (section := getattr(spec, name)) is not None
    }
    if "golden" in sections.get("canary", {}):
        sections["canary"]["golden"] = _located(sections["canary"]["golden"])
    return {**source, **paths, **own, **sections}


def _given(section: msgspec.Struct) -> dict[str, Any]:
    """The fields that were given, in the names and the notation of the service."""
    values = {name: getattr(section, name) for name in section.__struct_fields__}
    return {
        name: size_of(value) if name == "queue_bytes" else value
        for name, value in values.items()
        if value is not None
    }


def _located(uri: str) -> str:
    if not uri.startswith(_CLAIM_SCHEME):
        return uri
    return f"{CLAIMS}/{uri.removeprefix(_CLAIM_SCHEME)}"


def _claims(entries: dict[str, Any]) -> tuple[str, ...]:
    uris = [uri for entry in entries.values() for uri in _uris(entry)]
    below = [uri.removeprefix(f"{CLAIMS}/") for uri in uris if uri.startswith(f"{CLAIMS}/")]
    return tuple(sorted({path.partition("/")[0] for path in below}))


def _uris(entry: dict[str, Any]) -> list[str]:
    """Of every file that it reads; it may come from a live file that somebody else wrote."""
    canary, masks = entry.get("canary"), entry.get("masks")
    golden = canary.get("golden") if isinstance(canary, dict) else None
    named = [*masks.values()] if isinstance(masks, dict) else []
    return [uri for uri in (entry.get("uri"), entry.get("ids"), golden, *named) if isinstance(uri, str)]


def _default_index(pool: Pool, entries: dict[str, Any]) -> tuple[str | None, tuple[Refusal, ...]]:
    asked = pool.server.default_index if isinstance(pool.server, CosineServerSpec) else None
    if asked is None or asked in entries:
        return asked, ()
    message = f"defaultIndex {asked} is no index of this server, so POST /cos has none; name one of its own"
    return None, (Refusal(Reason.DEFAULT_INDEX_NOT_FOUND, message, optional=True),)


def _entries(text: str | None) -> dict[str, Any]:
    """The indexes of a live file; whatever somebody else wrote into it is none."""
    try:
        document = yaml.safe_load(text or "")
    except yaml.YAMLError:
        return {}
    indexes = document.get("indexes") if isinstance(document, dict) else None
    entries = indexes.items() if isinstance(indexes, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, dict) and _is_ours(entry)}


def _is_ours(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get("uri"), str) and isinstance(entry.get("ids", ""), str)
