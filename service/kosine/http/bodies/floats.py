"""Vectors as bytes: raw float32, or an .npy. A body is looked at, not copied, and never unpickled.

Which numbers are good is not asked here: that needs the version that will answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kosine.errors import InvalidValue, LoadCode, LoadError
from kosine.npy.content import array_of
from kosine.npy.header import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ("from_npy", "from_raw")

_WIDTH = 4


def from_raw(content: bytes, *, path: str = "$") -> NDArray[np.float32]:
    """Little-endian float32, one row behind the other, [n * d]; `path` is where it was. Raises InvalidValue.

    >>> from_raw(bytes.fromhex("0000803f00000040"))
    array([1., 2.], dtype=float32)
    """
    if len(content) % _WIDTH:
        raise InvalidValue(
            f"expected little-endian float32, 4 bytes a number, at {path}, got {len(content)} bytes; NumPy: "
            "x.astype('<f4').tobytes()",
            path=path,
            got=len(content),
        )
    return np.frombuffer(content, "<f4").astype(np.float32, copy=False)


def from_npy(body: bytes) -> NDArray[np.float32]:
    """What `np.save` wrote, [d] or [n, d], as float32. Raises InvalidValue."""
    try:
        vectors = array_of(body)
    except LoadError as error:
        raise InvalidValue(_told(error), reason=error.code.value) from None
    if vectors.ndim not in {1, 2}:
        raise InvalidValue(f"expected an .npy of shape (d,) or (n, d), got {shown(vectors.shape)}")
    if vectors.dtype == np.float32 and vectors.flags.c_contiguous:
        return vectors
    # What is too large for float32 becomes an infinity, which is refused by its position.
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(vectors, np.float32)


def _told(error: LoadError) -> str:
    """A body is sent, not written to a disk."""
    if error.code is LoadCode.SIZE_MISMATCH:
        return (
            f"the .npy's header needs {error.facts['expected']} bytes, the body has {error.facts['got']}; "
            "send what np.save wrote, whole"
        )
    return error.detail
