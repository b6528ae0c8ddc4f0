"""Item ids: one int64 or one text per row, each of them once.

Answers carry ids, so an id that JSON cannot carry, or that names two rows, is refused before anything is
published. Ids are decoded to native byte order; text stays fixed-width, as NumPy wrote it.
"""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.body import CHUNK_BYTES, read_chunks
from kosine.npy.header import DtypeRule, read_header, shown
from kosine.serving.item_ids import hash_texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kosine.loading.source import Reader
    from kosine.npy.header import NpyHeader

__all__ = ("IDS_DTYPES", "MAX_ID_LENGTH", "IdsArtifact", "read_ids", "read_ids_header")

IDS_DTYPES = DtypeRule(
    codes=frozenset({"i8", "u8", "U"}),
    names="int64 or fixed-width text (i8, u8, U; any byte order)",
    remedy="write ids.astype(np.int64), or ids.astype(str) for text",
)

MAX_ID_LENGTH = 512
"""Characters of a text id; a thousand of them make one answer."""

_SHOWN = 5
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IdsArtifact:
    """The id of every row, [rows] int64 or text; `digest` is the SHA-256 of all bytes of the file."""

    values: NDArray[Any]
    digest: bytes


def read_ids_header(reader: Reader, *, rows: int) -> NpyHeader:
    """The checked header of an ids file for `rows` items; its body is not read.

    LoadError at GATE: those of `npy.read_header`, `ids_invalid`, or `ids_length`; their facts say file="ids".
    """
    try:
        header = read_header(reader, rule=IDS_DTYPES)
    except LoadError as error:
        raise LoadError(
            error.code, f"ids file: {error.detail}", stage=error.stage, file="ids", **error.facts
        ) from None
    if len(header.shape) != 1:
        detail = f"ids file: expected a 1-D array, got {shown(header.shape)}; write ids.reshape(-1)"
        raise LoadError(LoadCode.IDS_INVALID, detail, stage=Stage.GATE, file="ids")
    if header.elements != rows:
        raise LoadError(
            LoadCode.IDS_LENGTH,
            f"ids file: expected one id for each of {rows} rows, got {header.elements}; write both files in "
            "one job, ids first",
            stage=Stage.GATE,
            expected=rows,
            got=header.elements,
            file="ids",
        )
    if header.dtype.kind == "U" and header.dtype.itemsize // 4 > MAX_ID_LENGTH:
        _refuse(
            f"expected at most {MAX_ID_LENGTH} characters an id, got {header.dtype.str}", stage=Stage.GATE
        )
    return header


def read_ids(
    reader: Reader,
    *,
    rows: int,
    cancelled: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda _: None,
) -> IdsArtifact:
    """Read and check one id for each of `rows` items.

    LoadError: those of `read_ids_header`; at CHECK `ids_duplicate`, and `ids_invalid` for a uint64 beyond
    int64, an empty text, or a text with control characters or with what is no Unicode; at FETCH `cancelled`.
    """
    header = read_ids_header(reader, rows=rows)
    digest = sha256()
    raw = np.empty(rows, dtype=header.dtype)
    step = max(1, CHUNK_BYTES // header.dtype.itemsize)
    counts = [min(step, rows - start) for start in range(0, rows, step)]
    chunks = read_chunks(
        reader,
        header.data_offset,
        (count * header.dtype.itemsize for count in counts),
        sink=digest.update,
        cancelled=cancelled,
        progress=progress,
    )
    with closing(chunks):
        for index, chunk in enumerate(chunks):
            raw[index * step : index * step + counts[index]] = np.frombuffer(chunk, dtype=header.dtype)
    values = _texts(raw, step) if header.dtype.kind == "U" else _integers(raw)
    return IdsArtifact(values=values, digest=digest.digest())


def _integers(raw: NDArray[Any]) -> NDArray[np.int64]:
    if raw.dtype.kind == "u":
        largest = np.iinfo(np.int64).max
        _refuse_rows(np.flatnonzero(raw > largest), f"expected ids up to {largest}, got larger ones")
    values = raw.astype(np.int64, copy=False)
    _check_unique(values, values)
    return values


def _texts(raw: NDArray[Any], step: int) -> NDArray[np.str_]:
    """Native text. Any mistake of a code point shows before a string object is made of it."""
    values: NDArray[np.str_] = np.ascontiguousarray(raw, dtype=raw.dtype.newbyteorder("="))
    points = values.view(np.uint32).reshape(len(values), -1)
    hashes = np.empty(len(values), np.uint64)
    for start in range(0, len(values), step):
        part = points[start : start + step]
        for what, wrong in _text_faults(part):
            _refuse_rows(start + np.flatnonzero(wrong), f"expected {what}")
        hashes[start : start + step] = hash_texts(part)
    _check_unique(hashes, values)
    return values


def _text_faults(points: NDArray[np.uint32]) -> tuple[tuple[str, NDArray[np.bool_]], ...]:
    """What a text id must be, and which rows of code points [n, width] are not; zeros at the end pad."""
    filled = points != 0
    lengths = points.shape[1] - np.argmax(filled[:, ::-1], axis=1)
    control = (filled & _within(points, 0, 0x1F)) | _within(points, 0x7F, 0x9F)
    unencodable = _within(points, 0xD800, 0xDFFF) | _within(points, sys.maxunicode + 1, 2**32 - 1)
    return (
        ("non-empty ids", ~np.any(filled, axis=1)),
        ("ids that UTF-8 can carry", np.any(unencodable, axis=1)),
        ("ids without control characters", np.any(control, axis=1) | (np.sum(filled, axis=1) < lengths)),
    )


def _within(points: NDArray[np.uint32], first: int, last: int) -> NDArray[np.bool_]:
    return (points >= first) & (points <= last)


def _check_unique(keys: NDArray[Any], values: NDArray[Any]) -> None:
    """LoadError `ids_duplicate` where `values` repeat. Equal values have equal keys: distinct keys end it."""
    ordered = np.sort(keys)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not repeated.size:
        return
    rows_of: dict[Any, list[int]] = {}
    for row in np.flatnonzero(np.isin(keys, repeated)).tolist():
        rows_of.setdefault(values[row].item(), []).append(row)
    duplicates = {value: rows for value, rows in rows_of.items() if len(rows) > 1}
    if not duplicates:
        return
    first = [(value, rows[:_SHOWN]) for value, rows in list(duplicates.items())[:_SHOWN]]
    listed = "; ".join(f"{_shown(value)} at rows {', '.join(map(str, rows))}" for value, rows in first)
    raise LoadError(
        LoadCode.IDS_DUPLICATE,
        f"ids file: expected each id once, got {len(duplicates)} ids more than once: {listed}"
        f"{'; and others' if len(duplicates) > _SHOWN else ''}; make them unique",
        stage=Stage.CHECK,
        count=len(duplicates),
        rows=[rows for _, rows in first],
        file="ids",
    )


def _shown(value: Any) -> str:
    if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS:
        return repr(value[:_SHOWN_CHARACTERS]) + "..."
    return repr(value)


def _refuse_rows(rows: NDArray[np.intp], detail: str) -> None:
    if len(rows):
        first = rows[:_SHOWN].tolist()
        listed = ", ".join(map(str, first))
        _refuse(f"{detail} in {len(rows)} rows, the first at {listed}", count=len(rows), rows=first)


def _refuse(detail: str, *, stage: Stage = Stage.CHECK, **facts: Any) -> NoReturn:
    raise LoadError(LoadCode.IDS_INVALID, f"ids file: {detail}", stage=stage, file="ids", **facts)
