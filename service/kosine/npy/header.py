"""The header gate: what an .npy claims, checked before a byte of its body is read.

NumPy's own reader accepts trailing bytes, allocates whatever a header claims, and answers bad ones with six
kinds of exception. This one reads at most 10,000 bytes of header with a grammar that has no nesting and no
evaluation, so its cost is bounded, and every refusal is a LoadError with the numbers. What passes has
exactly the bytes that its shape and dtype need.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from kosine.errors import LoadCode, LoadError, Stage
from kosine.npy import disguises

__all__ = ("MATRIX_DTYPES", "MAX_HEADER_BYTES", "DtypeRule", "NpyHeader", "Readable", "read_header", "shown")

MAX_HEADER_BYTES = 10_000
"""NumPy's own limit; it writes about 120."""

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4, (3, 0): 4}
_MAX_DIGITS = 19
_MAX_BYTES = 2**63 - 1
_EXPECTED = "{'descr': '<f4', 'fortran_order': False, 'shape': (N, d), }"

# Each character decides what may follow, so a hostile header costs one pass.
_GAP = r"[ \t\n]*"


def _field(key: str, value: str) -> str:
    return rf"""(?:'{key}'|"{key}"){_GAP}:{_GAP}{value}"""


_DESCR = _field("descr", r"""(?:'([^'"\\\n]*)'|"([^'"\\\n]*)")""")
_ORDER = _field("fortran_order", "(True|False)")
_SHAPE = _field("shape", r"\(([-0-9L, \t\n]*)\)")
_ANY = rf"(?:{_DESCR}|{_ORDER}|{_SHAPE})"
_HEADER = re.compile(rf"\{{{_GAP}{_ANY}{_GAP},{_GAP}{_ANY}{_GAP},{_GAP}{_ANY}{_GAP}(?:,{_GAP})?\}}{_GAP}")
_STRUCTURED = re.compile(_field("descr", rf"""(?:\[{_GAP}\(|\({_GAP}['"\[])"""))
_INTEGER = re.compile(r"(-?(?:0|[1-9][0-9]*))(L?)")
_CODE = re.compile(r"[<>=|]?(([a-zA-Z?])([0-9]{0,9}))(?:\[[0-9a-zA-Z]{1,8}\])?")

_SIZED = {"f": "float", "i": "int", "u": "uint", "c": "complex"}
_NAMES = {
    "?": "bool",
    "b": "bool",
    "M": "datetime64",
    "m": "timedelta64",
    "S": "bytes",
    "a": "bytes",
    "U": "text",
}


class Readable(Protocol):
    """Bytes of a known number, wherever they are."""

    @property
    def size(self) -> int:
        """How many there are."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the whole buffer from `offset`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DtypeRule:
    """Which dtypes a file may have. A code without a width, `U`, stands for any width."""

    codes: frozenset[str]
    names: str
    """All that is allowed, in words."""
    remedy: str


MATRIX_DTYPES = DtypeRule(
    codes=frozenset({"f2", "f4", "f8"}),
    names="float16, float32 or float64 (f2, f4, f8; any byte order)",
    remedy="write np.save(path, x.astype(np.float32)); item ids belong under `ids`",
)


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """A header whose claims fit the size of the file; its body is not read yet."""

    version: tuple[int, int]
    dtype: np.dtype[Any]
    fortran_order: bool
    shape: tuple[int, ...]
    data_offset: int

    @property
    def elements(self) -> int:
        """How many numbers the body holds."""
        return math.prod(self.shape)


def read_header(reader: Readable, *, rule: DtypeRule = MATRIX_DTYPES, stage: Stage = Stage.GATE) -> NpyHeader:
    """Read and check the header of `reader`, and nothing behind it.

    LoadError at `stage`: `bad_magic`, `unsupported_version`, `bad_header`, `dtype_not_allowed`, `bad_shape`,
    or `size_mismatch` where the file is not exactly as long as its header says.
    """
    return _Gate(reader, rule, stage).header()


@dataclass(frozen=True, slots=True)
class _Gate:
    reader: Readable
    rule: DtypeRule
    stage: Stage

    def header(self) -> NpyHeader:
        version, start, length = self._preamble()
        text = self._text(start, length)
        if _STRUCTURED.search(text):
            raise self._wrong_dtype("a structured or sub-array dtype", "")
        descr, order, shape = (re.search(pattern, text) for pattern in (_DESCR, _ORDER, _SHAPE))
        if not (_HEADER.fullmatch(text) and descr and order and shape):
            raise self._bad_header(f"expected {_EXPECTED}")
        header = NpyHeader(
            version=version,
            dtype=self._dtype(descr[1] or descr[2] or ""),
            fortran_order=order[1] == "True",
            shape=self._shape(shape[1], version),
            data_offset=start + length,
        )
        self._check_size(header)
        return header

    def _preamble(self) -> tuple[tuple[int, int], int, int]:
        """Version, where the header text starts, and how long it is."""
        size = self.reader.size
        prefix = self._read(0, min(size, disguises.PREFIX_BYTES))
        if not prefix or not prefix.startswith(_MAGIC[: len(prefix)]):
            what = disguises.describe(prefix, size)
            raise self._refusal(LoadCode.BAD_MAGIC, f"expected an .npy file, made by np.save; {what}")
        if len(prefix) < len(_MAGIC) + 2:
            raise self._cut_short()
        version = (prefix[6], prefix[7])
        if version not in _LENGTH_BYTES:
            raise self._refusal(
                LoadCode.UNSUPPORTED_VERSION,
                f"expected .npy version 1.0, 2.0 or 3.0, got {version[0]}.{version[1]}; use np.save",
            )
        width = _LENGTH_BYTES[version]
        start = len(_MAGIC) + 2 + width
        if len(prefix) < start:
            raise self._cut_short()
        return version, start, int.from_bytes(prefix[start - width : start], "little")

    def _text(self, start: int, length: int) -> str:
        if length > MAX_HEADER_BYTES:
            raise self._bad_header(f"expected at most {MAX_HEADER_BYTES} bytes, got {length}", length=length)
        if start + length > self.reader.size:
            raise self._cut_short()
        try:
            return self._read(start, length).decode("ascii")
        except UnicodeDecodeError:
            raise self._bad_header(f"it is not ASCII; expected {_EXPECTED}") from None

    def _dtype(self, descr: str) -> np.dtype[Any]:
        code = _CODE.fullmatch(descr)
        if code is None:
            raise self._wrong_dtype("a dtype without a plain code", "")
        known, kind, width = code.groups()
        if known not in self.rule.codes and not (kind in self.rule.codes and int(width or 0)):
            raise self._wrong_dtype(_name(kind, width), f" ('{descr}')")
        try:
            return np.dtype(descr)
        except (TypeError, ValueError):
            raise self._wrong_dtype("a dtype NumPy does not know", f" ('{descr}')") from None

    def _shape(self, text: str, version: tuple[int, int]) -> tuple[int, ...]:
        items = [item.strip(" \t\n") for item in text.split(",")]
        if len(items) > 1 and not items[-1]:
            items.pop()
        elif items == [""]:
            items.clear()
        elif len(items) == 1:
            raise self._bad_header(f"`shape` is a number, expected a tuple as in {_EXPECTED}")
        return tuple(self._extent(item, long_allowed=version < (3, 0)) for item in items)

    def _extent(self, text: str, *, long_allowed: bool) -> int:
        number = _INTEGER.fullmatch(text)
        # Python 2 wrote 3L.
        if number is None or (number[2] and not long_allowed):
            raise self._bad_header(f"`shape` holds something else than integers; expected {_EXPECTED}")
        if text.startswith("-"):
            raise self._refusal(
                LoadCode.BAD_SHAPE, "expected a shape of positive numbers, got a negative one"
            )
        if len(number[1]) > _MAX_DIGITS:
            raise self._refusal(LoadCode.BAD_SHAPE, "expected a shape that fits 64 bits, got a longer number")
        return int(number[1])

    def _check_size(self, header: NpyHeader) -> None:
        body = header.elements * header.dtype.itemsize
        if max(body, *header.shape, 0) > _MAX_BYTES:
            raise self._refusal(
                LoadCode.BAD_SHAPE, "expected a shape whose bytes fit 64 bits, got a larger one"
            )
        expected, size = header.data_offset + body, self.reader.size
        if expected == size:
            return
        if size < expected:
            how = f"{expected - size} are missing: the file was cut short, or is still being written"
        else:
            how = f"{size - expected} are too many: something was appended, or an older file overwritten"
        raise self._refusal(
            LoadCode.SIZE_MISMATCH,
            f"expected {expected} bytes for shape {shown(header.shape)} of {header.dtype.str}, got {size}; "
            f"{how}; write it again and rename it into place",
            expected=expected,
            got=size,
        )

    def _read(self, offset: int, length: int) -> bytes:
        buffer = bytearray(length)
        if length:
            self.reader.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def _refusal(self, code: LoadCode, detail: str, **facts: Any) -> LoadError:
        return LoadError(code, detail, stage=self.stage, **facts)

    def _bad_header(self, why: str, **facts: Any) -> LoadError:
        detail = f"the header is not one that NumPy writes: {why}; write it with np.save"
        return self._refusal(LoadCode.BAD_HEADER, detail, **facts)

    def _cut_short(self) -> LoadError:
        return self._bad_header(
            f"the file ends inside it, after {self.reader.size} bytes", got=self.reader.size
        )

    def _wrong_dtype(self, name: str, code: str) -> LoadError:
        detail = f"expected {self.rule.names}, got {name}{code}; {self.rule.remedy}"
        return self._refusal(LoadCode.DTYPE_NOT_ALLOWED, detail)


def shown(shape: tuple[int, ...]) -> str:
    """`shape` for a message, of bounded length."""
    most = 4
    inner = ", ".join(map(str, shape[:most])) + (", ..." if len(shape) > most else "")
    return f"({inner},)" if len(shape) == 1 else f"({inner})"


def _name(kind: str, width: str) -> str:
    if kind == "O":
        return "Python objects, which are a pickle, and pickle is never read,"
    if kind == "V":
        what = (
            "which is how NumPy writes bfloat16"
            if width == "2"
            else "which is how NumPy writes float8 and others"
        )
        return f"raw bytes, {what},"
    if kind in _SIZED and width:
        return f"{_SIZED[kind]}{8 * int(width)}"
    return _NAMES.get(kind, "a dtype NumPy does not know")
