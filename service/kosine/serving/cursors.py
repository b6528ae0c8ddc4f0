"""Where a walk through pages has come to, as text that its caller keeps: the service keeps nothing.

A cursor holds a place in the order of one query (`kosine.engines.pages`), the version it is a place in, and
a digest of those with the query and whatever it filters by. So it goes on only with the query it came from,
on every replica that serves the same version; k, and whether vectors are answered, may change on the way,
for the order depends on neither. It is no secret and no right: whoever makes one up gets rows that they
could ask for anyway.
"""

from __future__ import annotations

import math
import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from kosine.engines.pages import Place
from kosine.errors import BadCursor, VersionGone

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kosine.serving.options import RowOptions

__all__ = ("CURSOR_PATTERN", "Walk")

CURSOR_PATTERN = r"^[A-Za-z0-9_-]{0,128}$"
"""What cursors look like; the empty one begins."""

_CURSOR = re.compile(CURSOR_PATTERN)
_HEAD = struct.Struct("<8sfi")


class Walk:
    """The pages of one query over one version. `metric` is that of the index."""

    def __init__(
        self, *, version: str, metric: str, query: NDArray[np.float32] | None, options: RowOptions
    ) -> None:
        """`query` [dim] is None where `options` name a stored row."""
        self._version = version
        self._asked = _digest(metric, query, options)

    def cursor(self, place: Place) -> str:
        """43 characters for a version of 16."""
        packed = _HEAD.pack(self._check(place), *place) + self._version.encode("ascii")
        return urlsafe_b64encode(packed).rstrip(b"=").decode("ascii")

    def place(self, cursor: str) -> Place:
        """Where the page behind `cursor` begins. Raises VersionGone, or BadCursor."""
        packed = _unpacked(cursor)
        check, score, row = _HEAD.unpack_from(packed)
        version = packed[_HEAD.size :].decode("latin-1")
        if version != self._version:
            raise VersionGone(
                f"this cursor is from version {version}, but {self._version} answers now, and pages never "
                'mix versions; begin again with "after": null',
                expected=version,
                version=self._version,
            )
        place = Place(score, row)
        if check != self._check(place) or not math.isfinite(score):
            raise _bad("it is from another query, or was changed")
        return place

    def _check(self, place: Place) -> bytes:
        said = struct.pack("<fi", *place) + self._version.encode("ascii")
        return blake2b(said, key=self._asked, digest_size=8).digest()


def _digest(metric: str, query: NDArray[np.float32] | None, options: RowOptions) -> bytes:
    """Of everything the order and the choice of rows depend on."""
    digest = blake2b(digest_size=32)
    rows = (None, None) if options.filter is None else (options.filter.excluded, options.filter.included)
    said = {
        "metric": metric.encode("ascii"),
        "query": None if query is None else query.tobytes(),
        "stored": None if options.stored is None else b"%d" % options.stored,
        "excluded": None if rows[0] is None else np.unique(rows[0]).tobytes(),
        "included": None if rows[1] is None else np.unique(rows[1]).tobytes(),
        "mask": None if options.masks[0] is None else options.masks[0].encode("ascii"),
        "not_mask": None if options.masks[1] is None else options.masks[1].encode("ascii"),
        "min_score": None if options.min_score is None else struct.pack("<d", options.min_score),
    }
    for name, value in said.items():
        if value is not None:
            digest.update(b"%s %d " % (name.encode("ascii"), len(value)) + value)
    return digest.digest()


def _unpacked(cursor: str) -> bytes:
    packed = b""
    if _CURSOR.fullmatch(cursor) and len(cursor) % 4 != 1:
        packed = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    version = packed[_HEAD.size :]
    if not version or not (version.isascii() and version.decode("ascii").isprintable()):
        raise _bad("it is not one that this service gave out")
    return packed


def _bad(why: str) -> BadCursor:
    return BadCursor(
        f"expected in `after` the `next` of an answer to this query with these filters, but {why}; send both "
        'unchanged, or begin again with "after": null',
        path="$.after",
    )
