"""An .npy in memory is read as NumPy reads it, or refused as a file would be."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from kosine.errors import LoadCode, LoadError
from kosine.npy.content import array_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DTYPES = nps.floating_dtypes(endianness="?", sizes=(16, 32, 64))


def saved(array: NDArray[Any], *, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    return file.getvalue()


def code_of(content: bytes) -> LoadCode:
    with pytest.raises(LoadError) as refused:
        array_of(content)
    return refused.value.code


@given(
    nps.arrays(_DTYPES, nps.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)),
    st.sampled_from([(1, 0), (2, 0), (3, 0)]),
    st.booleans(),
)
def test_what_numpy_saves_is_read_to_the_last_bit(
    array: NDArray[Any], version: tuple[int, int], fortran: bool
) -> None:
    """Any float dtype, byte order, memory order and version of the format."""
    array = np.asfortranarray(array) if fortran else array
    found = array_of(saved(array, version=version))

    assert (array.dtype, array.shape) == (found.dtype, found.shape)
    assert array.tobytes() == found.tobytes()


def test_it_is_a_view() -> None:
    """No byte is copied, and nobody can write to a body."""
    content = saved(np.ones((256, 512), np.float32))
    found = array_of(content)

    assert not found.flags.owndata
    assert not found.flags.writeable


def test_a_head_that_is_known_is_held_against_each_body() -> None:
    """The same head before another number of bytes is refused."""
    content = saved(np.ones(4, np.float32))

    assert 4 == len(array_of(content))
    for wrong in (content[:-1], content + b"\0", content[:-4]):
        assert LoadCode.SIZE_MISMATCH == code_of(wrong)
    assert 4 == len(array_of(content))


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", LoadCode.BAD_MAGIC),
        (b"\x93NUMPY", LoadCode.BAD_HEADER),
        (b"\x93NUMPY\x01\x00\xff\xff", LoadCode.BAD_HEADER),
        (b"[1, 2]", LoadCode.BAD_MAGIC),
        (saved(np.array([1, 2])), LoadCode.DTYPE_NOT_ALLOWED),
        (saved(np.array([1j])), LoadCode.DTYPE_NOT_ALLOWED),
        (saved(np.ones(3))[:-8], LoadCode.SIZE_MISMATCH),
    ],
)
def test_what_is_none_is_refused(content: bytes, code: LoadCode) -> None:
    """With the codes of a file."""
    assert code == code_of(content)


@given(st.binary(max_size=300) | st.binary(max_size=300).map(saved(np.ones(3)).__add__))
def test_no_bytes_do_anything_else(content: bytes) -> None:
    """Hostile ones included."""
    with contextlib.suppress(LoadError):
        assert isinstance(array_of(content), np.ndarray)
