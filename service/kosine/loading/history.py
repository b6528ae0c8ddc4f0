"""Which versions an index served, and which of them it is held at: pure, and small enough to be kept.

Versions are ordered by when they last served, each is there once, and the first is the one that serves. So
what a rollback goes back to is the second, and a rollback of a rollback undoes it.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003  msgspec reads the annotations
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from kosine.errors import LoadCode, LoadError, Stage, UnknownVersion, VersionGone
from kosine.loading.version_files import VersionFiles  # noqa: TC001
from kosine.serving.status import Cause, Pin, ServedVersion
from kosine.settings import Layout, Metric  # noqa: TC001

if TYPE_CHECKING:
    from kosine.serving.status import VersionInfo
    from kosine.settings import IndexSettings

__all__ = (
    "History",
    "Served",
    "check_decoding",
    "check_earlier",
    "choose",
    "confirmed",
    "entry_of",
    "kept",
    "serves",
)


class Served(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One version: its identity, its files, and how they were decoded."""

    version: str
    digest: str
    fingerprint: str
    rows: int
    dim: int
    layout: Layout
    metric: Metric
    cause: Cause
    published_at: datetime
    retired_at: datetime | None = None
    """None: it serves, or did when the process ended."""
    files: VersionFiles

    def told(self) -> ServedVersion:
        """As the status shows it."""
        return ServedVersion(
            version=self.version,
            digest=self.digest,
            fingerprint=self.fingerprint,
            rows=self.rows,
            dim=self.dim,
            cause=self.cause,
            published_at=self.published_at,
            retired_at=self.retired_at,
        )


class History(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The versions, the one that serves first, and the pin that holds it there."""

    versions: tuple[Served, ...] = ()
    pin: Pin | None = None

    @property
    def pinned(self) -> Served | None:
        """The version that the index is held at."""
        return self.versions[0] if self.pin is not None and self.versions else None


def entry_of(info: VersionInfo, settings: IndexSettings, files: VersionFiles, *, cause: Cause) -> Served:
    """What is remembered of a version that is published now."""
    return Served(
        version=info.version,
        digest=info.digest,
        fingerprint=info.fingerprint,
        rows=info.rows,
        dim=info.dim,
        layout=settings.layout,
        metric=settings.metric,
        cause=cause,
        published_at=info.loaded_at,
        files=files,
    )


def serves(history: History, entry: Served, *, keep: int) -> History:
    """`entry` serves from now on, and at most `keep` versions before it are remembered.

    The same content again, as after a restart or with other settings, goes on serving.
    """
    head, earlier = history.versions[:1], history.versions[1:]
    for before in head:
        if before.digest == entry.digest:
            entry = structs.replace(entry, published_at=before.published_at, cause=before.cause)
        else:
            retired = structs.replace(before, retired_at=entry.published_at)
            earlier = (retired, *(each for each in earlier if each.digest != entry.digest))
    return kept(structs.replace(history, versions=(entry, *earlier)), keep=keep)


def confirmed(history: History, *, fingerprint: str, files: VersionFiles) -> History:
    """The version that serves is now in these files, or has these masks."""
    if not history.versions:
        return history
    head = structs.replace(history.versions[0], fingerprint=fingerprint, files=files)
    return structs.replace(history, versions=(head, *history.versions[1:]))


def kept(history: History, *, keep: int) -> History:
    """At most `keep` versions before the one that serves."""
    return structs.replace(history, versions=history.versions[: keep + 1])


def choose(history: History, asked: str | None, *, keep: int) -> Served:
    """The version `asked`, by its name or its whole digest; None: the one that served before.

    Raises UnknownVersion.
    """
    known = [each.version for each in history.versions]
    if asked is not None:
        found = [each for each in history.versions if asked in (each.version, each.digest)]
        if found:
            return found[0]
        detail = (
            f"expected one of the last versions of this index ({', '.join(known) or 'none'}), got another"
        )
    elif len(history.versions) > 1:
        return history.versions[1]
    else:
        detail = "expected a version that was served before this one, none is remembered"
    raise UnknownVersion(
        f"{detail}; `history: {keep}` is how many of them are, GET /indexes/{{name}} lists them", known=known
    )


def check_decoding(entry: Served, settings: IndexSettings, *, serving: str | None) -> None:
    """Raises VersionGone where the settings in force make another version of the same bytes."""
    then, now = (entry.layout, entry.metric), (settings.layout, settings.metric)
    if then != now:
        raise VersionGone(
            f"version {entry.version} was read with layout {then[0]} and metric {then[1]}, configured are "
            f"{now[0]} and {now[1]}; set those again to go back to it",
            asked=entry.version,
            version=serving,
        )


def check_earlier(entry: Served, digest: str) -> None:
    """LoadError `digest_mismatch` at CHECK where what was read is another version."""
    if digest != entry.digest:
        raise LoadError(
            LoadCode.DIGEST_MISMATCH,
            f"expected version {entry.version}, the files make {digest[:16]}; they were written to since",
            stage=Stage.CHECK,
            expected=entry.digest,
            got=digest,
        )
