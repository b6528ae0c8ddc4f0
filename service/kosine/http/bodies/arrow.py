"""Answers as an Arrow IPC stream: a record batch of a row for each query; the version is schema metadata.

`ids` and `scores` are lists, and `embeddings` where they were asked for; `code` is why a query was refused,
else null. A page has `next` in the metadata, empty where nothing is behind it. nanoarrow writes all this:
pyarrow would be 50 times as large for the same bytes.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import nanoarrow as na
import numpy as np
from nanoarrow.ipc import StreamWriter

from kosine.http.bodies.columns import columns_of

if TYPE_CHECKING:
    from nanoarrow.c_array import CArray
    from numpy.typing import NDArray

    from kosine.http.bodies.columns import Columns
    from kosine.serving.request import SearchResult

__all__ = ("encode_arrow",)


def encode_arrow(result: SearchResult) -> bytes:
    """The schema, the record batch, and the end of the stream."""
    columns = columns_of(result)
    rows, offsets = len(columns.codes), columns.offsets.astype(np.int32)
    children = {
        "ids": _lists(_ids(columns), rows, offsets),
        "scores": _lists(_plain(columns.scores, na.float32()), rows, offsets),
        "code": na.c_array(columns.codes, na.string()),
    }
    if columns.embeddings is not None:
        children["embeddings"] = _lists(_vectors(columns.embeddings), rows, offsets)
    fields = na.struct({name: child.schema for name, child in children.items()}, nullable=False)
    metadata = {"version": result.version}
    if result.next is not None:
        metadata["next"] = result.next
    schema = na.c_schema(fields).modify(metadata=metadata)
    batch = na.c_array_from_buffers(schema, rows, [None], null_count=0, children=children.values())
    file = io.BytesIO()
    with StreamWriter.from_writable(file) as writer:
        writer.write_array(batch)
    return file.getvalue()


def _ids(columns: Columns) -> CArray:
    if columns.ids.dtype.kind == "U":
        return na.c_array(columns.ids.tolist(), na.string())
    return _plain(columns.ids, na.int64())


def _plain(values: NDArray[Any], kind: na.Schema) -> CArray:
    return na.c_array_from_buffers(kind, len(values), [None, values], null_count=0)


def _vectors(embeddings: NDArray[np.float32]) -> CArray:
    count, dim = embeddings.shape
    flat = _plain(embeddings.ravel(), na.float32())
    return na.c_array_from_buffers(
        na.fixed_size_list(na.float32(), dim), count, [None], null_count=0, children=[flat]
    )


def _lists(values: CArray, rows: int, offsets: NDArray[np.int32]) -> CArray:
    return na.c_array_from_buffers(
        na.list_(values.schema), rows, [None, offsets], null_count=0, children=[values]
    )
