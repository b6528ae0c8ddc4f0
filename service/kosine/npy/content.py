"""An .npy that is in memory as a whole: its array, as a view of the bytes.

Nothing is allocated for what a header claims: a claim that does not fit the bytes exactly is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from kosine.npy.header import MATRIX_DTYPES, read_header

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kosine.npy.header import DtypeRule, NpyHeader

__all__ = ("array_of",)

_VERSION_1 = b"\x93NUMPY\x01\x00"
_BEFORE_TEXT = len(_VERSION_1) + 2
_USUAL_HEAD = 128
"""Bytes of a head as NumPy pads it. Callers send the same one again and again, so it is read once."""


def array_of(content: bytes, *, rule: DtypeRule = MATRIX_DTYPES) -> NDArray[Any]:
    """The array that `np.save` wrote, read-only, of the dtypes that `rule` allows. Raises LoadError.

    >>> import io
    >>> np.save(file := io.BytesIO(), np.arange(3.0))
    >>> array_of(file.getvalue())
    array([0., 1., 2.])
    """
    header = _header(content, rule)
    flat = np.frombuffer(content, header.dtype, header.elements, header.data_offset)
    return flat.reshape(header.shape, order="F" if header.fortran_order else "C")


def _header(content: bytes, rule: DtypeRule) -> NpyHeader:
    if content.startswith(_VERSION_1):
        end = _BEFORE_TEXT + int.from_bytes(content[8:_BEFORE_TEXT], "little")
        if end <= min(_USUAL_HEAD, len(content)):
            return _read_once(content[:end], len(content), rule)
    return read_header(_Bytes(content, len(content)), rule=rule)


@lru_cache(maxsize=64)
def _read_once(head: bytes, size: int, rule: DtypeRule) -> NpyHeader:
    return read_header(_Bytes(head, size), rule=rule)


@dataclass(frozen=True, slots=True)
class _Bytes:
    """Implements Readable; what is not at hand reads as zeros, since nobody looks behind a good head."""

    start: bytes
    size: int

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See Readable."""
        known = self.start[offset : offset + len(buffer)]
        buffer[: len(known)] = known
