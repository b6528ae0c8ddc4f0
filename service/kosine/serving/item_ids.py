"""From ids to rows and back. Immutable, made in a loader thread.

Rows are found by binary search among sorted keys: 12 bytes a row, where a dict takes over 100. The key of a
whole number is itself; that of a text is a hash, and what a hash finds is compared.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from kosine.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Ids = Sequence[int | str] | NDArray[np.int64]

__all__ = ("LOOKUP_BYTES", "ItemIds", "hash_texts")

LOOKUP_BYTES = 28
"""A row, while the lookup is made: its key, its rank as NumPy sorts, and what is kept."""

_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


class ItemIds:
    """The ids of `rows` rows: `values` [rows] int64 or native text, each once, or None for row numbers."""

    def __init__(self, values: NDArray[Any] | None, rows: int) -> None:
        self.values = values
        self._rows = rows
        if values is not None:
            keys = _keys(values)
            order = np.argsort(keys, kind="stable")
            self._sorted, self._order = keys[order], order.astype(np.int32)
            self._collide = values.dtype.kind == "U" and bool((self._sorted[1:] == self._sorted[:-1]).any())

    @property
    def are_text(self) -> bool:
        """Whether ids are text; else they are whole numbers."""
        return self.values is not None and self.values.dtype.kind == "U"

    def names(self, rows: NDArray[np.int32]) -> list[Any]:
        """The ids of these rows, nested like them."""
        named: list[Any] = (rows if self.values is None else self.values[rows]).tolist()
        return named

    def typed(self, text: str) -> int | str:
        """The id that `text` writes: itself, or where ids are numbers the number; no other spelling of it."""
        return int(text) if not self.are_text and _NUMBER.fullmatch(text) else text

    def find(self, ids: Ids, *, field: str) -> NDArray[np.int32]:
        """The row of each id, -1 where there is none. InvalidValue where `field` has another type of id."""
        rows, found = self._look_up(ids, field)
        return np.where(found, rows, -1).astype(np.int32)

    def known(self, ids: Ids, *, field: str) -> NDArray[np.int32]:
        """The rows of those that there are, in their order. Raises as `find`."""
        rows, found = self._look_up(ids, field)
        # A tenth of the time of `found.all()`.
        everyone = 0 not in found.tobytes()
        return (rows if everyone else rows[found]).astype(np.int32, copy=False)

    def left_out(self, ids: Ids, *, field: str) -> NDArray[np.integer]:
        """Numbers of the rows of those that there are, and perhaps of none. Raises as `find`.

        Row numbers are taken as they are: those that are none leave nothing out, and they are held against
        the rows a batch at a time, which takes a tenth of the time.
        """
        if self.values is not None:
            return self.known(ids, field=field)
        if isinstance(ids, np.ndarray):
            return ids
        self._check_types(ids, field)
        asked, held = _as_int64(ids)
        return asked if held is None else asked[held]

    def _look_up(self, ids: Ids, field: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """A row for each id, and whether it is that of the id."""
        self._check_types(ids, field)
        rows: NDArray[Any]
        if self.are_text:
            rows = self._find_texts([str(each) for each in ids])
            return rows, rows >= 0
        asked, held = (ids, None) if isinstance(ids, np.ndarray) else _as_int64(ids)
        if self.values is not None:
            rows, found = self._nearest(asked)
        else:
            # A negative number becomes a large one.
            rows, found = asked, asked.view(np.uint64) < self._rows
        return rows, found if held is None else found & held

    def _check_types(self, ids: Ids, field: str) -> None:
        wanted, told = (str, "texts") if self.are_text else (int, "whole numbers")
        if isinstance(ids, np.ndarray):
            wrong = ids[:1].tolist() if self.are_text else []
        elif {wanted}.issuperset(map(type, ids)):
            wrong = []
        else:
            wrong = [each for each in ids if type(each) is not wanted]
        if wrong:
            raise InvalidValue(
                f"ids of this index are {told}: expected that in `{field}`, got "
                f"{'a text' if isinstance(wrong[0], str) else 'a number'}",
                path=f"$.{field}",
            )

    def _find_texts(self, ids: list[str]) -> NDArray[np.int32]:
        values = self.values
        if values is None or not ids:
            return np.empty(0, np.int32)
        width = values.dtype.itemsize // 4
        # What is longer would be cut to an id that it is not; so would a NUL at the end.
        known = [each if len(each) <= width and _encodable(each) else "" for each in ids]
        asked = np.array(known, values.dtype)
        keys = _keys(asked)
        rows, found = self._nearest(keys)
        rows = np.where(found & (values[rows] == asked), rows, np.int32(-1))
        if self._collide:
            for missed in np.flatnonzero(found & (rows < 0)).tolist():
                rows[missed] = self._among_equals(keys[missed], asked[missed])
        return rows

    def _nearest(self, keys: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """The first row whose key is not less, and whether it is equal."""
        at = np.minimum(np.searchsorted(self._sorted, keys), self._rows - 1)
        return self._order[at], self._sorted[at] == keys

    def _among_equals(self, key: Any, text: Any) -> int:
        """The row of `text` among those whose texts have the same hash; -1: none."""
        first, end = np.searchsorted(self._sorted, key), np.searchsorted(self._sorted, key, side="right")
        rows = self._order[first:end]
        same = rows[self.values[rows] == text] if self.values is not None else rows[:0]
        return int(same[0]) if len(same) else -1


def _as_int64(ids: Sequence[int | str]) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    """The numbers, and which of them an int64 holds, None for all; the others are 0."""
    try:
        # Nearly always, and a twentieth of the time of looking at each.
        return np.array(ids, np.int64), None
    except OverflowError:
        limits = np.iinfo(np.int64)
        held = np.array([limits.min <= int(each) <= limits.max for each in ids])
        return np.array([each if fits else 0 for each, fits in zip(ids, held, strict=True)], np.int64), held


def _encodable(text: str) -> bool:
    """Whether it can be an id at all: none has a NUL or half of a surrogate pair."""
    return bool(text) and "\0" not in text


def _keys(values: NDArray[Any]) -> NDArray[Any]:
    return hash_texts(values.view(np.uint32).reshape(len(values), -1)) if values.dtype.kind == "U" else values


def hash_texts(points: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Of code points [n, width]: equal for equal rows; unequal ones seldom collide."""
    hashed = np.zeros(len(points), np.uint64)
    for column in points.T:
        hashed = (hashed ^ column) * _MULTIPLIER
        hashed ^= hashed >> np.uint64(32)
    return hashed
