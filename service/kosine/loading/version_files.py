"""What a version was made of: its files, where they were, what their store called them, and their content.

Whoever has this can load the version again, and tell whether it got the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from kosine.loading.job import Sources
from kosine.loading.manifest import Manifest  # noqa: TC001  msgspec reads the annotations
from kosine.loading.source import Fingerprint  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kosine.loading.masks import MaskArtifact
    from kosine.settings import IndexSettings

__all__ = ("VersionFiles", "by_role", "files_of", "mask_role", "sha256_of")

_ENDINGS = {"vectors": ".npy", "ids": ".ids.npy"}
_MASK = "mask."
"""Before the name of a mask; names have no dots."""


def mask_role(name: str) -> str:
    """What the mask `name` is, beside `vectors` and `ids`."""
    return f"{_MASK}{name}"


class VersionFiles(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The files of one version; `sha256` (hex) by role: `vectors`, `ids`, `mask.NAME`."""

    uri: str
    ids_uri: str | None
    vectors: Fingerprint
    ids: Fingerprint | None
    manifest: Fingerprint | None
    named: Manifest | None
    sha256: dict[str, str]
    masks: dict[str, Fingerprint] = field(default_factory=dict)
    mask_uris: dict[str, str] = field(default_factory=dict)

    def sources(self) -> Sources:
        """What a look at the source found then."""
        return Sources(
            vectors=self.vectors, ids=self.ids, masks=self.masks, manifest=self.manifest, named=self.named
        )

    def seen(self) -> dict[str, Fingerprint]:
        """What the store called each file, by role."""
        return by_role(self.sources())

    def copies(self) -> dict[str, str]:
        """Names of their copies, by role."""
        return {role: f"{digest}{_ending(role)}" for role, digest in self.sha256.items()}

    def places(self) -> dict[str, str]:
        """Where each file was, by role."""
        if self.named is not None:
            ids = {"ids": self.named.ids.uri} if self.named.ids is not None else {}
            masks = {mask_role(name): part.uri for name, part in self.named.masks.items()}
            return {"vectors": self.named.vectors.uri, **ids, **masks}
        ids = {"ids": self.ids_uri} if self.ids_uri is not None else {}
        masks = {mask_role(name): uri for name, uri in self.mask_uris.items()}
        return {"vectors": self.uri, **ids, **masks}

    def is_of(self, settings: IndexSettings) -> bool:
        """Whether that is the source that is configured."""
        return (self.uri, self.ids_uri, self.mask_uris) == (settings.uri, settings.ids, settings.masks)


def files_of(settings: IndexSettings, sources: Sources, sha256: Mapping[str, str]) -> VersionFiles:
    """The files that `sources` tells of, once their content is known."""
    return VersionFiles(
        uri=settings.uri,
        ids_uri=settings.ids,
        vectors=sources.vectors,
        ids=sources.ids,
        manifest=sources.manifest,
        named=sources.named,
        sha256=dict(sha256),
        masks=dict(sources.masks),
        mask_uris=settings.masks,
    )


def sha256_of(vectors: bytes, ids: bytes | None, masks: Mapping[str, MaskArtifact]) -> dict[str, str]:
    """Of every file, by role, in hex."""
    of_ids = {"ids": ids.hex()} if ids is not None else {}
    of_masks = {mask_role(name): mask.digest.hex() for name, mask in masks.items()}
    return {"vectors": vectors.hex(), **of_ids, **of_masks}


def by_role(sources: Sources) -> dict[str, Fingerprint]:
    """What the store calls each file."""
    ids = {"ids": sources.ids} if sources.ids is not None else {}
    masks = {mask_role(name): fingerprint for name, fingerprint in sources.masks.items()}
    return {"vectors": sources.vectors, **ids, **masks}


def _ending(role: str) -> str:
    return ".mask.npy" if role.startswith(_MASK) else _ENDINGS[role]
