"""The header gate against NumPy: what passes means what NumPy says it means; the rest is a LoadError."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.artifact import read_matrix
from kosine.loading.ids import IDS_DTYPES
from kosine.loading.layout import plan_matrix
from kosine.npy.disguises import describe
from kosine.npy.header import NpyHeader, read_header
from tests.kit.bad_files import bad_files
from tests.kit.npy_files import BytesReader, header_text, npy_bytes, raw_npy

VERSIONS = ((1, 0), (2, 0), (3, 0))
ROWS = np.arange(1, 13, dtype=np.float64).reshape(3, 4)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8"])
@pytest.mark.parametrize("fortran_order", [False, True])
def test_a_header_is_read_as_numpy_wrote_it(
    version: tuple[int, int], dtype: str, *, fortran_order: bool
) -> None:
    """Every version, dtype and order comes back as it was written, and the body begins where NumPy put it."""
    array = np.array(ROWS, dtype=dtype, order="F" if fortran_order else "C")
    content = npy_bytes(array, version=version)
    header = read_header(BytesReader(content))
    assert header == NpyHeader(version, np.dtype(dtype), fortran_order, (3, 4), len(content) - array.nbytes)
    assert header.elements == 12


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)}", (1, 0)),
        ("{'shape': (3, 4), 'fortran_order': False, 'descr': '<f4'}", (1, 0)),
        ('{"descr": "<f4", "fortran_order": False, "shape": (3, 4)}', (1, 0)),
        ("{'descr':'<f4','fortran_order':False,'shape':(3,4,),}\n", (2, 0)),
        ("{ 'descr' : '<f4' ,\n\t'fortran_order' : False , 'shape' : ( 3 , 4 ) , } \n", (3, 0)),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3L, 4L), }   \n", (1, 0)),
        ("{'descr': 'f4', 'fortran_order': False, 'shape': (3, 4), }", (1, 0)),
    ],
)
def test_a_header_of_another_writer_is_read_as_numpy_reads_it(text: str, version: tuple[int, int]) -> None:
    """Other spacing, quotes, order of keys, and the integers of Python 2 are legitimate."""
    content = raw_npy(text, ROWS.astype("<f4").tobytes(), version=version)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns about Python 2.
        theirs = np.load(io.BytesIO(content), allow_pickle=False)
    header = read_header(BytesReader(content))
    assert (header.shape, header.dtype) == (theirs.shape, theirs.dtype)


def test_the_gate_reads_nothing_behind_the_header_but_its_prefix() -> None:
    """Law 6: a body is not fetched to find out that its header is wrong."""
    reader = BytesReader(npy_bytes(np.ones((1000, 100), np.int64)))
    with pytest.raises(LoadError):
        read_header(reader)
    assert max(stop for _, stop in reader.reads) <= 512


def test_the_caller_names_the_stage() -> None:
    """A refusal carries the stage in which the header was read."""
    with pytest.raises(LoadError) as refused:
        read_header(BytesReader(b""), stage=Stage.CHECK)
    assert refused.value.stage is Stage.CHECK


def test_allowed_dtypes_are_the_callers() -> None:
    """N3: ids may be integers and text where vectors may not, and the refusal lists what is allowed."""
    content = npy_bytes(np.arange(5))
    assert read_header(BytesReader(content), rule=IDS_DTYPES).dtype == np.int64
    with pytest.raises(LoadError, match=r"float16, float32 or float64 .* got int64 \('<i8'\).*astype"):
        read_header(BytesReader(content))


@pytest.mark.parametrize(
    ("descr", "named"),
    [
        ("'|O'", "pickle is never read"),
        ("'<V2'", "how NumPy writes bfloat16"),
        ("'|b1'", "got bool"),
        ("'<c8'", "got complex64"),
        ("'<U5'", "got text"),
        ("'<f16'", "got float128"),
        ("'<M8[ns]'", "got datetime64"),
        ("[('a', '<f4')]", "got a structured"),
    ],
)
def test_a_dtype_is_refused_by_name(descr: str, named: str) -> None:
    """N2, N3: the message says what the numbers are, not only what they should be."""
    with pytest.raises(LoadError) as refused:
        read_header(BytesReader(raw_npy(header_text(descr, "(1, 1)"))))
    assert refused.value.code is LoadCode.DTYPE_NOT_ALLOWED
    assert named in refused.value.detail


def test_a_length_mismatch_names_both_lengths() -> None:
    """N1: missing and surplus bytes are told apart, with what was expected and what came."""
    content = npy_bytes(ROWS)
    for wrong, how in ((content[:-5], "5 are missing"), (content + b"ab", "2 are too many")):
        with pytest.raises(LoadError, match=how) as refused:
            read_header(BytesReader(wrong))
        assert refused.value.facts == {"expected": len(content), "got": len(wrong)}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", "it is empty"),
        ("zeros", "preallocated"),
        ("html error page", "HTML or XML page"),
        ("xml error of a store", "HTML or XML page"),
        ("npz", "an .npz archive"),
        ("zip", "a zip archive"),
        ("gzip", "gzip data"),
        ("parquet", "a Parquet file"),
        ("hdf5", "an HDF5 file"),
        ("pickle", "a pickle, which is never read"),
        ("csv", "text, perhaps CSV"),
        ("json", "JSON"),
        ("git lfs pointer", "git lfs pull"),
        ("numbers without a header", "binary data without a header"),
    ],
)
def test_what_is_no_npy_is_recognised(name: str, words: str) -> None:
    """N1: a refusal says what the file looks like, and what to do instead."""
    content = next(file.content for file in bad_files() if file.name == name)
    with pytest.raises(LoadError, match=words):
        read_header(BytesReader(content))


def test_more_disguises_are_recognised() -> None:
    """Formats of the field: .fvecs, a PyTorch checkpoint, text that is cut inside a character."""
    fvecs = b"".join((4).to_bytes(4, "little") + row.astype("<f4").tobytes() for row in ROWS)
    assert ".fvecs file of 4 numbers" in describe(fvecs, len(fvecs))
    assert "PyTorch" in describe(b"PK\x03\x04....archive/data.pkl", 1000)
    assert "text" in describe("größe;maß\n".encode()[:-3], 1000)


def test_a_refusal_repeats_no_byte_of_the_file() -> None:
    """Law 11: a secret that lies where vectors should be does not reach a log."""
    planted = "hunter2-hunter2"
    contents = (
        planted.encode() * 9,
        raw_npy(planted),
        raw_npy(header_text(f"'{planted}'", "(1, 1)")),
        raw_npy(header_text("'<f4'", f"({planted})")),
    )
    for content in contents:
        with pytest.raises(LoadError) as refused:
            read_header(BytesReader(content))
        assert "hunter2" not in f"{refused.value.detail}{refused.value.facts}"


_SEEDS = (
    npy_bytes(ROWS.astype("<f4")),
    npy_bytes(np.asfortranarray(ROWS.astype(">f8")), version=(2, 0)),
    npy_bytes(ROWS.astype("<f2"), version=(3, 0)),
)
_HEADER_CHARACTERS = st.sampled_from(b"0123456789(),{}[]'\" \n-LTrueFalse<>=|fiuOUVb\\x\0\xff:")


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    """A good file with a few bytes changed, removed or inserted, most of them in its header."""
    content = bytearray(draw(st.sampled_from(_SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        if not content:
            break
        limit = len(content) - 1 if draw(st.booleans()) else min(len(content) - 1, 90)
        at = draw(st.integers(0, limit))
        action = draw(st.sampled_from(("set", "insert", "delete", "cut", "append")))
        if action == "set":
            content[at] = draw(_HEADER_CHARACTERS | st.integers(0, 255))
        elif action == "insert":
            content[at:at] = bytes(draw(st.lists(_HEADER_CHARACTERS, min_size=1, max_size=4)))
        elif action == "delete":
            del content[at : at + draw(st.integers(1, 4))]
        elif action == "cut":
            del content[at:]
        else:
            content += draw(st.binary(min_size=1, max_size=8))
    return bytes(content)


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_mutated())
def test_a_damaged_file_is_refused_or_read_as_numpy_reads_it(content: bytes) -> None:
    """N1: never another exception than LoadError, never other numbers than np.load finds."""
    reader = BytesReader(content)
    try:
        plan = plan_matrix(read_header(reader), layout="rows", dim=None)
        artifact = read_matrix(reader, plan, metric="dot", check_layout=False)
    except LoadError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = np.load(io.BytesIO(content), allow_pickle=False)
    ours = artifact.matrix.take(np.arange(artifact.matrix.rows))
    np.testing.assert_array_equal(ours, theirs.astype(np.float32), strict=True)
