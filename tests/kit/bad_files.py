"""Files that must never be served, each with its row of the fault catalogue (N1-N7) and a code."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kosine.errors import LoadCode
from tests.kit.npy_files import header_text, npy_bytes, raw_npy, unit_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ("BadFile", "bad_files")


@dataclass(frozen=True, slots=True)
class BadFile:
    """`content`, read with `options` (layout, dim, metric), is refused with `code`."""

    row: str
    name: str
    content: bytes
    code: LoadCode
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.row}-{self.name}"


_ROWS = unit_rows(6, 4).astype(np.float32)
_GOOD = npy_bytes(_ROWS)
_FLAT = {"layout": "transposed", "dim": 4}


def bad_files() -> tuple[BadFile, ...]:
    """The corpus."""
    return tuple(
        file
        for make in (_no_npy, _cut, _bad_headers, _dtypes, _shapes, _hostile_shapes, _bad_content, _orders)
        for file in make()
    )


def _no_npy() -> Iterator[BadFile]:
    archive, packed = io.BytesIO(), io.BytesIO()
    np.savez(archive, items=_ROWS)
    with zipfile.ZipFile(packed, "w") as target:
        target.writestr("items.txt", "1 2 3")
    random = np.random.default_rng(7).bytes(500)
    contents = {
        "empty": b"",
        "random bytes": b"\x01" + random,
        "zeros": bytes(4096),
        "html error page": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "xml error of a store": b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>",
        "npz": archive.getvalue(),
        "zip": packed.getvalue(),
        "gzip": gzip.compress(_GOOD),
        "bzip2": bz2.compress(_GOOD),
        "xz": lzma.compress(_GOOD),
        "parquet": b"PAR1" + random,
        "hdf5": b"\x89HDF\r\n\x1a\n" + random,
        "pickle": b"\x80\x04\x95" + random,
        "csv": b"0.1,0.2,0.3\n" * 50,
        "json": json.dumps(_ROWS.tolist()).encode(),
        "git lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "numbers without a header": _ROWS.tobytes(),
        "npy behind a byte order mark": b"\xef\xbb\xbf" + _GOOD,
        "magic in lower case": b"\x93numpy" + _GOOD[6:],
    }
    for name, content in contents.items():
        yield BadFile("N1", name, content, LoadCode.BAD_MAGIC)


def _cut() -> Iterator[BadFile]:
    for length in (1, 5, 6, 7, 8, 9, 10, 50, 127):
        yield BadFile("N1", f"cut to {length} bytes", _GOOD[:length], LoadCode.BAD_HEADER)
    contents = {
        "no body": _GOOD[:128],
        "body lacks its last byte": _GOOD[:-1],
        "one byte too many": _GOOD + b"\0",
        "two files in one": _GOOD + _GOOD,
        "rows of an older longer file": _GOOD + _ROWS[:2].tobytes(),
    }
    for name, content in contents.items():
        yield BadFile("N1", name, content, LoadCode.SIZE_MISMATCH)


def _bad_headers() -> Iterator[BadFile]:
    for version in ((0, 0), (1, 1), (4, 0), (255, 255)):
        content = _GOOD[:6] + bytes(version) + _GOOD[8:]
        yield BadFile("N1", f"version {version}", content, LoadCode.UNSUPPORTED_VERSION)
    headers = {
        "no header": "",
        "no dict": "[1, 2]",
        "empty dict": "{}",
        "key missing": "{'descr': '<f4', 'shape': (6, 4), }",
        "key twice": "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (6, 4), }",
        "key more": "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 4), 'more': 1, }",
        "order as a number": header_text("'<f4'", "(6, 4)", fortran_order=0),
        "shape as a list": header_text("'<f4'", "[6, 4]"),
        "shape as a number": header_text("'<f4'", "(6)"),
        "shape as text": header_text("'<f4'", "'6, 4'"),
        "shape of floats": header_text("'<f4'", "(6.0, 4.0)"),
        "shape with an expression": header_text("'<f4'", "(2*3, 4)"),
        "shape with a leading zero": header_text("'<f4'", "(06, 4)"),
        "shape of commas": header_text("'<f4'", "(,)"),
        "call in the shape": header_text("'<f4'", "(__import__('os').getpid(), 4)"),
        "descr as a number": header_text("4", "(6, 4)"),
        "escape in descr": header_text(r"'\x3cf4'", "(6, 4)"),
        "unclosed": "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 4",
        "text behind the dict": header_text("'<f4'", "(6, 4)") + "x",
        "NUL bytes": header_text("'<f4'", "(6, 4)") + "\0\0",
        "not ascii": header_text("'<f4'", "(6, 4)").replace("6", "٦"),
    }
    for name, text in headers.items():
        yield BadFile("N1", f"header: {name}", raw_npy(text, _ROWS.tobytes()), LoadCode.BAD_HEADER)
    python2 = raw_npy(header_text("'<f4'", "(6L, 4L)"), _ROWS.tobytes(), version=(3, 0))
    yield BadFile("N1", "Python 2 integers in version 3", python2, LoadCode.BAD_HEADER)


def _dtypes() -> Iterator[BadFile]:
    fields = np.dtype([("a", "<f4"), ("b", "<i4")])
    arrays: dict[str, NDArray[Any]] = {
        "int8": _ROWS.astype(np.int8),
        "int32": _ROWS.astype(np.int32),
        "int64": _ROWS.astype(np.int64),
        "uint16": _ROWS.astype(np.uint16),
        "bool": _ROWS > 0,
        "complex64": _ROWS.astype(np.complex64),
        "longdouble": _ROWS.astype(np.longdouble),
        "text": _ROWS.astype(str),
        "bytes": _ROWS.astype(bytes),
        "datetime": np.array([["2020-01-01"]], dtype="M8[D]"),
        "timedelta": np.array([[1]], dtype="m8[s]"),
        "structured": np.zeros((6, 4), dtype=fields),
        "structured of one field": np.zeros((6, 4), dtype=[("a", "<f4")]),
    }
    for name, array in arrays.items():
        yield BadFile("N3", name, npy_bytes(array), LoadCode.DTYPE_NOT_ALLOWED)
    descrs = {
        "bfloat16": "'<V2'",
        "float8": "'|V1'",
        "sub-array": "('<f4', (2,))",
        "several dtypes in one text": "'<f4,<f4'",
        "no dtype": "''",
        "unknown letter": "'<x4'",
        "float of no width": "'<f'",
        "float of a silly width": "'<f99999999'",
        "nested brackets": "[('" + "a" * 9000 + "', '<f4')]",
    }
    for name, descr in descrs.items():
        content = raw_npy(header_text(descr, "(6, 4)"), _ROWS.tobytes())
        yield BadFile("N3", name, content, LoadCode.DTYPE_NOT_ALLOWED)
    objects = raw_npy(header_text("'|O'", "(1, 1)"), b"\x80\x04\x95not a pickle")
    yield BadFile("N2", "objects", objects, LoadCode.DTYPE_NOT_ALLOWED)


def _shapes() -> Iterator[BadFile]:
    shapes: dict[str, tuple[tuple[int, ...], LoadCode, dict[str, Any]]] = {
        "0-d": ((), LoadCode.BAD_SHAPE, {}),
        "1-d": ((24,), LoadCode.BAD_SHAPE, {}),
        "3-d": ((2, 3, 4), LoadCode.BAD_SHAPE, {}),
        "3-d with one row each": ((6, 1, 4), LoadCode.BAD_SHAPE, {}),
        "no rows": ((0, 4), LoadCode.EMPTY_MATRIX, {}),
        "no dimensions": ((6, 0), LoadCode.EMPTY_MATRIX, {}),
        "neither": ((0, 0), LoadCode.EMPTY_MATRIX, {}),
        "no columns": ((4, 0), LoadCode.EMPTY_MATRIX, {"layout": "columns"}),
        "flat and empty": ((0,), LoadCode.EMPTY_MATRIX, _FLAT),
        "flat without dim": ((24,), LoadCode.DIM_REQUIRED, {"layout": "transposed"}),
        "flat, dim does not divide": ((23,), LoadCode.BAD_SHAPE, _FLAT),
        "flat, but 2-d": ((4, 6), LoadCode.BAD_SHAPE, _FLAT),
        "flat, but 0-d": ((), LoadCode.BAD_SHAPE, _FLAT),
        "another dim than declared": ((6, 4), LoadCode.DIM_NOT_DECLARED, {"dim": 5}),
        "declared dim on the other axis": ((6, 4), LoadCode.DIM_NOT_DECLARED, {"dim": 6}),
        "too many dimensions": ((1, 65_537), LoadCode.BAD_SHAPE, {}),
    }
    for name, (shape, code, options) in shapes.items():
        yield BadFile("N4", name, npy_bytes(np.ones(shape, np.float32)), code, options)


def _hostile_shapes() -> Iterator[BadFile]:
    shapes = {
        "negative rows": ("(-6, 4)", LoadCode.BAD_SHAPE),
        "negative twice": ("(-6, -4)", LoadCode.BAD_SHAPE),
        "minus one": ("(-1, 4)", LoadCode.BAD_SHAPE),
        "bool": ("(True, 4)", LoadCode.BAD_HEADER),
        "product overflows": ("(4611686018427387904, 4)", LoadCode.BAD_SHAPE),
        "wraps around to 24": ("(4611686018427387910, 4)", LoadCode.BAD_SHAPE),
        "nothing times too much": ("(0, 9223372036854775808)", LoadCode.BAD_SHAPE),
        "thousands of digits": (f"({'9' * 5000}, 4)", LoadCode.BAD_SHAPE),
        "thousands of axes": (f"({'1, ' * 3000})", LoadCode.BAD_SHAPE),
        "two petabytes": ("(1000000000000, 512)", LoadCode.SIZE_MISMATCH),
        "ten gigabytes": ("(5000000, 512)", LoadCode.SIZE_MISMATCH),
    }
    for name, (shape, code) in shapes.items():
        body = b"" if "axes" not in name else bytes(4)
        yield BadFile("N5", name, raw_npy(header_text("'<f4'", shape), body), code)
    good = header_text("'<f4'", "(6, 4)")
    texts = {
        "five megabytes of header": good + " " * 5_000_000,
        "header claims four gigabytes": "",
        "5,000 brackets": header_text("[" * 5000 + "]" * 5000, "(6, 4)"),
        "4,000 brackets": header_text("[" * 4000 + "]" * 4000, "(6, 4)"),
        "4,000 parentheses": header_text("'<f4'", "(" * 4000 + ")" * 4000),
        "9,000 minus signs": header_text("'<f4'", f"({'-' * 9000}1, 4)"),
        "9,000 blanks and no end": "{'descr': '<f4'" + " " * 9000,
    }
    for name, text in texts.items():
        content = raw_npy(text, _ROWS.tobytes(), version=(2, 0))
        if "claims" in name:
            content = content[:8] + b"\xff\xff\xff\xff" + content[12:]
        yield BadFile("N5", name, content, LoadCode.BAD_HEADER)


def _bad_content() -> Iterator[BadFile]:
    def spoilt(value: float, dtype: str = "<f4") -> bytes:
        rows = _ROWS.astype(dtype)
        rows[2, 1] = value
        return npy_bytes(rows)

    zero, tiny = _ROWS.copy(), _ROWS.astype(np.float64)
    zero[3] = 0.0
    tiny[3] = 1e-60
    contents = {
        "NaN": (spoilt(np.nan), LoadCode.NOT_FINITE),
        "infinity": (spoilt(np.inf), LoadCode.NOT_FINITE),
        "minus infinity": (spoilt(-np.inf), LoadCode.NOT_FINITE),
        "NaN in float16": (spoilt(np.nan, "<f2"), LoadCode.NOT_FINITE),
        "NaN, big endian": (spoilt(np.nan, ">f8"), LoadCode.NOT_FINITE),
        "more than a float32 holds": (spoilt(1e39, "<f8"), LoadCode.NOT_FINITE),
        "a row of zeros": (npy_bytes(zero), LoadCode.ZERO_ROWS),
        "a row that float32 flushes to zero": (npy_bytes(tiny), LoadCode.ZERO_ROWS),
        "nothing but zeros": (npy_bytes(np.zeros_like(_ROWS)), LoadCode.ZERO_ROWS),
    }
    for name, (content, code) in contents.items():
        yield BadFile("N6", name, content, code)
    yield BadFile("N6", "NaN, metric dot", spoilt(np.nan), LoadCode.NOT_FINITE, {"metric": "dot"})


def _orders() -> Iterator[BadFile]:
    many = unit_rows(64, 8)
    flat, columns, mismatch = (
        {"layout": "transposed", "dim": 8},
        {"layout": "columns"},
        LoadCode.LAYOUT_MISMATCH,
    )
    yield BadFile("N7", "columns read as rows", npy_bytes(many.T.copy()), mismatch)
    yield BadFile("N7", "columns read as rows, Fortran", npy_bytes(np.asfortranarray(many.T)), mismatch)
    yield BadFile("N7", "rows read as columns", npy_bytes(many), mismatch, columns)
    yield BadFile("N7", "rows read as columns, float16", npy_bytes(many.astype("<f2")), mismatch, columns)
    yield BadFile("N4", "flat and not transposed", npy_bytes(many.ravel()), mismatch, flat)
    yield BadFile("N4", "the same for dot", npy_bytes(many.ravel()), mismatch, {**flat, "metric": "dot"})
    unproven = LoadCode.LAYOUT_UNPROVEN
    yield BadFile("N4", "flat and not normalised", npy_bytes(3 * many.T.ravel()), unproven, flat)
    wrong_dim = {"layout": "transposed", "dim": 16}
    yield BadFile("N4", "flat with a wrong dim that divides", npy_bytes(many.T.ravel()), unproven, wrong_dim)
