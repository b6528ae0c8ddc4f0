"""JSON bodies of the usual shape, whose numbers become arrays without ever being Python objects.

A typed decoder makes a float or an int of each of some hundred numbers; simdjson, which does not, takes a
third of its time, and what is done with the numbers afterwards is done to arrays. It judges nothing here:
what is not plainly one of these bodies is left to `kosine.http.wire`, which takes or refuses it by its own
rules. A body that is read here means the same there (`tests/unit/test_json_arrays.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import simdjson

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ("LARGEST", "JsonArrays")

LARGEST = 2**18
"""Bytes of a body: a parser keeps several times the memory of the largest that it has read."""

_SCALARS = {
    "k": frozenset({int}),
    "min_score": frozenset({int, float}),
    "mask": frozenset({str}),
    "not_mask": frozenset({str}),
}
"""Types of the values, exactly: a bool is no number."""
_IDS = ("exclude", "include")


class JsonArrays:
    """One parser, whose memory is used again and again. Not thread-safe."""

    def __init__(self, *, max_ids: int) -> None:
        """`max_ids` are the most ids of one list."""
        self._parser = simdjson.Parser()
        self._max_ids = max_ids

    def read(self, body: bytes) -> dict[str, Any] | None:
        """The fields of `body`, or None where it is none of the usual ones, good or bad.

        `embedding` is float64 [n], `embeddings` a list of such, and there is exactly one of them; `exclude`
        and `include` are int64 [n], or lists of text.
        """
        # simdjson skips a byte order mark.
        if len(body) > LARGEST or not body.startswith(b"{"):
            return None
        try:
            return self._fields(body)
        # What is no JSON (its UnicodeDecodeError is a ValueError) or not what was expected of the value; the
        # last: references of another thread to what it has read.
        except (ValueError, TypeError, AttributeError, RuntimeError):
            return None

    def _fields(self, body: bytes) -> dict[str, Any] | None:
        document: Any = self._parser.parse(body)
        fields: dict[str, Any] = {}
        arrays = 0
        for key in document.keys():  # noqa: SIM118  it iterates over nothing else
            value = document[key]
            if key == "embedding":
                fields[key] = np.frombuffer(value.as_buffer(of_type="d"))
                arrays += 1
            elif key in _IDS:
                fields[key] = ids = _ids(value)
                if len(ids) > self._max_ids:
                    return None
                arrays += 1
            elif key in _SCALARS and type(value) in _SCALARS[key]:
                fields[key] = value
            elif key == "embeddings":
                fields[key] = [np.frombuffer(row.as_buffer(of_type="d")) for row in value]
                arrays += 1 + len(value)
            else:
                return None
        # Buffers are flat whatever lies in an array; and of a key that comes twice, the last counts.
        sound = arrays == body.count(b"[") and len(fields) == len(document)
        return fields if sound and ("embedding" in fields) is not ("embeddings" in fields) else None


def _ids(value: Any) -> NDArray[np.int64] | list[str]:
    try:
        return np.frombuffer(value.as_buffer(of_type="i"), np.int64)
    except TypeError:  # its first that is no whole number
        texts: list[str] = value.as_list()
    if {str}.issuperset(map(type, texts)):
        return texts
    raise TypeError
