"""Answers as an .npz: what `np.load` opens, without pickle.

`ids` and `scores` are [k] for the result of one query, and [n, k] for those of several, where `counts` [n]
says how many of each row are there: fewer than k where the index or the query allows no more. What is missing
is padded with -1 (text: empty) and NaN. `codes` [n] says why a query was refused, else it is empty. Where the
vectors were asked for, `embeddings` are [k, d] or [n, k, d]. A page has `next`, empty
where nothing is behind it.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from kosine.http.bodies.columns import columns_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kosine.http.bodies.columns import Columns
    from kosine.serving.request import SearchResult

__all__ = ("encode_npz",)


def encode_npz(result: SearchResult) -> bytes:
    """The members are stored, not deflated: scores do not compress."""
    columns = columns_of(result)
    arrays = _padded(columns) if result.many else _plain(columns)
    if result.next is not None:
        arrays["next"] = np.array(result.next)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, version=np.array(result.version), **arrays)
    return file.getvalue()


def _plain(columns: Columns) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {"ids": columns.ids, "scores": columns.scores}
    return arrays if columns.embeddings is None else {**arrays, "embeddings": columns.embeddings}


def _padded(columns: Columns) -> dict[str, NDArray[Any]]:
    counts = np.diff(columns.offsets)
    shape = (len(counts), int(counts.max(initial=0)))
    there = np.arange(shape[1]) < counts[:, np.newaxis]
    ids = np.full(shape, "" if columns.ids.dtype.kind == "U" else -1, columns.ids.dtype)
    scores = np.full(shape, np.nan, np.float32)
    ids[there], scores[there] = columns.ids, columns.scores
    codes = np.array([code or "" for code in columns.codes])
    arrays = {"ids": ids, "scores": scores, "counts": counts.astype(np.int32), "codes": codes}
    if columns.embeddings is not None:
        arrays["embeddings"] = np.full((*shape, columns.embeddings.shape[1]), np.nan, np.float32)
        arrays["embeddings"][there] = columns.embeddings
    return arrays
