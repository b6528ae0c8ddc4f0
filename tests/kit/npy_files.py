"""Files for tests: real .npy bytes as NumPy writes them, headers as nobody should, and a reader of bytes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from kosine.errors import LoadCode, LoadError, Stage

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ("BytesReader", "header_text", "in_order", "npy_bytes", "raw_npy", "unit_rows")


class BytesReader:
    """Implements `Reader` over bytes in memory, and remembers what was read of them."""

    buffer_bytes = 0

    def __init__(self, content: bytes) -> None:
        self.size = len(content)
        self.reads: list[tuple[int, int]] = []
        """Start and stop of every read so far."""
        self._content = content

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See `Reader.read_into`."""
        self.reads.append((offset, offset + len(buffer)))
        found = self._content[offset : offset + len(buffer)]
        if len(found) < len(buffer):
            raise LoadError(LoadCode.CHANGED_WHILE_READING, "read past the end", stage=Stage.FETCH)
        buffer[:] = found

    def lend(self, offset: int, size: int) -> None:
        """See `Reader.lend`: never."""

    def verify(self) -> None:
        """Bytes never change."""


def in_order(array: NDArray[Any], order: str) -> NDArray[Any]:
    """`array` in C order ("C") or in Fortran order ("F")."""
    return np.asfortranarray(array) if order == "F" else np.ascontiguousarray(array)


def npy_bytes(array: ArrayLike, *, version: tuple[int, int] = (1, 0)) -> bytes:
    """`array` as NumPy writes it; Fortran order where the array has it and C order not."""
    target = io.BytesIO()
    np.lib.format.write_array(target, np.asanyarray(array), version=version)
    return target.getvalue()


def raw_npy(header: str | bytes, body: bytes = b"", *, version: tuple[int, int] = (1, 0)) -> bytes:
    """A file with exactly this header text, and nothing checked."""
    text = header if isinstance(header, bytes) else header.encode("utf-8")
    width = 2 if version == (1, 0) else 4
    return b"\x93NUMPY" + bytes(version) + len(text).to_bytes(width, "little") + text + body


def header_text(descr: str, shape: Any, *, fortran_order: object = False) -> str:
    """A header as NumPy lays it out; `descr` and `shape` as source text."""
    return f"{{'descr': {descr}, 'fortran_order': {fortran_order}, 'shape': {shape}, }}\n"


def unit_rows(rows: int, dim: int, *, seed: int = 0) -> NDArray[np.float64]:
    """Random directions, [rows, dim], norm 1."""
    vectors = np.random.default_rng(seed).standard_normal((rows, dim))
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
