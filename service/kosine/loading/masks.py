"""Mask files: one bool per row of the vectors, read whole before anybody is answered by them.

A mask that does not fit is refused by name, and what serves keeps the one it has.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.body import CHUNK_BYTES, read_chunks
from kosine.npy.header import DtypeRule, read_header, shown
from kosine.serving.masks import Masks, NamedMask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from kosine.loading.source import Reader
    from kosine.npy.header import NpyHeader
    from kosine.serving.masks import FileRows

__all__ = ("MASK_BUFFER_BYTES", "MASK_DTYPES", "MaskArtifact", "named_masks", "read_mask", "read_mask_header")

MASK_DTYPES = DtypeRule(
    codes=frozenset({"b1", "?"}), names="bool (b1)", remedy="write np.save(path, flags.astype(bool))"
)
MASK_BUFFER_BYTES = 2 * CHUNK_BYTES
"""Most memory that reading takes beside the flags."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskArtifact:
    """A flag for every row of the file of vectors, [rows]; `digest` is the SHA-256 of all bytes."""

    flags: NDArray[np.bool_]
    digest: bytes


def read_mask_header(reader: Reader, *, name: str, rows: int) -> NpyHeader:
    """The checked header of the mask `name` for `rows` rows; its body is not read.

    LoadError at GATE: those of `npy.read_header`, `mask_invalid`, or `mask_length`; their facts name it.
    """
    try:
        header = read_header(reader, rule=MASK_DTYPES)
    except LoadError as error:
        raise LoadError(
            error.code, f"mask {name}: {error.detail}", stage=error.stage, mask=name, **error.facts
        ) from None
    if len(header.shape) != 1:
        detail = f"mask {name}: expected a 1-D array, got {shown(header.shape)}; write flags.reshape(-1)"
        raise LoadError(LoadCode.MASK_INVALID, detail, stage=Stage.GATE, mask=name)
    if header.elements != rows:
        raise LoadError(
            LoadCode.MASK_LENGTH,
            f"mask {name}: expected one bool for each of {rows} rows, got {header.elements}; write it for "
            "these vectors, or publish both by one manifest",
            stage=Stage.GATE,
            expected=rows,
            got=header.elements,
            mask=name,
        )
    return header


def read_mask(
    reader: Reader, *, name: str, rows: int, cancelled: Callable[[], bool] = lambda: False
) -> MaskArtifact:
    """Read and check the mask `name`. LoadError as `read_mask_header`; `mask_invalid`, too, at CHECK."""
    header = read_mask_header(reader, name=name, rows=rows)
    digest = sha256()
    raw = np.empty(rows, np.uint8)
    spans = [(start, min(rows, start + CHUNK_BYTES)) for start in range(0, rows, CHUNK_BYTES)]
    chunks = read_chunks(
        reader,
        header.data_offset,
        (stop - start for start, stop in spans),
        sink=digest.update,
        cancelled=cancelled,
        progress=lambda _: None,
    )
    with closing(chunks):
        for (start, stop), chunk in zip(spans, chunks, strict=True):
            raw[start:stop] = np.frombuffer(chunk, np.uint8)
            if raw[start:stop].max() > 1:
                raise LoadError(
                    LoadCode.MASK_INVALID,
                    f"mask {name}: expected bytes that are 0 or 1, as np.save writes bools, got another one",
                    stage=Stage.CHECK,
                    mask=name,
                )
    return MaskArtifact(flags=raw.view(np.bool_), digest=digest.digest())


def named_masks(read: Mapping[str, MaskArtifact], rows: FileRows, *, before: Masks | None = None) -> Masks:
    """What was read, for the rows of a version; one with the content it had `before` stays as it was."""
    held = before.named if before is not None else {}
    named = {}
    for name, mask in read.items():
        same = held.get(name)
        named[name] = same if same is not None and same.digest == mask.digest.hex() else _named(mask, rows)
    return Masks(rows=rows, named=named)


def _named(mask: MaskArtifact, rows: FileRows) -> NamedMask:
    flags = rows.narrowed(mask.flags)
    flags.flags.writeable = False
    return NamedMask(
        flags=flags,
        true=int(np.count_nonzero(flags)),
        digest=mask.digest.hex(),
        loaded_at=datetime.now(UTC),
    )
