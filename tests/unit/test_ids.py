"""Item ids: what can be answered with, one for each row, each once."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading import ids as ids_module
from kosine.loading.ids import MAX_ID_LENGTH, IdsArtifact, read_ids
from kosine.serving.item_ids import hash_texts
from tests.kit.npy_files import BytesReader, header_text, npy_bytes, raw_npy

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _read(array: NDArray[Any], rows: int | None = None) -> IdsArtifact:
    return read_ids(BytesReader(npy_bytes(array)), rows=array.size if rows is None else rows)


def _points(*texts: list[int]) -> NDArray[Any]:
    """Text ids of raw code points, which no Python string could be made of."""
    return np.array(texts, dtype=np.uint32).view(f"U{len(texts[0])}").reshape(-1)


@pytest.mark.parametrize("dtype", ["<i8", ">i8", "<u8", ">u8"])
def test_integers_of_any_byte_order_become_native_int64(dtype: str) -> None:
    """Values are those of the file, ready to be answered."""
    expected = np.array([3, 1, 2**62, 7, 0], dtype=np.int64)
    content = npy_bytes(expected.astype(dtype))
    ids = read_ids(BytesReader(content), rows=5)
    np.testing.assert_array_equal(ids.values, expected, strict=True)
    assert ids.values.dtype.isnative
    assert ids.digest == hashlib.sha256(content).digest()


def test_negative_integers_are_ids() -> None:
    """int64 is int64."""
    assert _read(np.array([-1, -(2**63), 5])).values.tolist() == [-1, -(2**63), 5]


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_text_of_any_byte_order_comes_back_as_it_was(byte_order: str) -> None:
    """Other scripts, astral characters, spaces, and texts of unequal length."""
    texts = ["a", "größe", "日本語", "🦊 fox", "zero\u200bwidth", "a longer text"]
    values = _read(np.array(texts).astype(f"{byte_order}U13")).values
    assert values.tolist() == texts
    assert values.dtype.isnative


@pytest.mark.parametrize("rows", [0, 4, 6, 1_000_000])
def test_ids_of_another_length_are_refused_with_both_numbers(rows: int) -> None:
    """N10: matrix and ids belong together."""
    with pytest.raises(LoadError) as refused:
        _read(np.arange(5), rows=rows)
    assert (refused.value.code, refused.value.stage) == (LoadCode.IDS_LENGTH, Stage.GATE)
    assert refused.value.facts == {"expected": rows, "got": 5, "file": "ids"}


@pytest.mark.parametrize(
    ("array", "listed", "rows"),
    [
        (np.array([7, 1, 7, 2, 7]), "7 at rows 0, 2, 4", [[0, 2, 4]]),
        (np.array(["b", "a", "b"]), "'b' at rows 0, 2", [[0, 2]]),
        (np.array([1, 2, 2, 1]), "1 at rows 0, 3; 2 at rows 1, 2", [[0, 3], [1, 2]]),
        (np.zeros(100, np.int64), "0 at rows 0, 1, 2, 3, 4", [[0, 1, 2, 3, 4]]),
    ],
)
def test_duplicates_are_refused_with_their_rows(array: NDArray[Any], listed: str, rows: list[Any]) -> None:
    """N10: an id that names two rows is no id."""
    with pytest.raises(LoadError) as refused:
        _read(array)
    assert refused.value.code is LoadCode.IDS_DUPLICATE
    assert listed in refused.value.detail
    assert refused.value.facts == {"count": len(rows), "rows": rows, "file": "ids"}


def test_of_many_duplicates_five_are_named() -> None:
    """The message stays short whatever the file holds."""
    with pytest.raises(LoadError, match=r"got 1000 ids more than once.*; and others") as refused:
        _read(np.array([f"{'x' * 400}{number % 1000}" for number in range(3000)]))
    assert len(refused.value.detail) < 500
    assert len(refused.value.facts["rows"]) == 5


def test_a_long_duplicate_is_shortened() -> None:
    """An id in a message is cut."""
    with pytest.raises(LoadError, match=r"'x{40}'\.\.\. at rows 0, 1"):
        _read(np.array(["x" * 400] * 2))


def test_hashes_tell_texts_apart() -> None:
    """Without collisions no text is compared, which is what makes a million ids quick to check."""
    texts = np.array([f"item-{number}" for number in range(100_000)])
    hashes = hash_texts(texts.view(np.uint32).reshape(len(texts), -1))
    assert len(np.unique(hashes)) == len(texts)


def test_colliding_hashes_are_no_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes only choose what is compared: with one hash for all, unique ids pass and repeats do not."""
    monkeypatch.setattr(ids_module, "hash_texts", lambda points: np.zeros(len(points), np.uint64))
    assert _read(np.array(["a", "b", "c"])).values.tolist() == ["a", "b", "c"]
    with pytest.raises(LoadError, match="'b' at rows 1, 2"):
        _read(np.array(["a", "b", "b"]))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([1, 2**63], dtype=np.uint64), "up to 9223372036854775807, got larger ones in 1 rows"),
        (np.array(["a", "", "b"]), "expected non-empty ids in 1 rows, the first at 1"),
        (np.array(["a", "b\nc"]), "without control characters"),
        (np.array(["a", "b\x7f"]), "without control characters"),
        (np.array(["a", "b\x85"]), "without control characters"),
        (_points([65, 0, 66]), "without control characters"),
        (_points([0, 0, 66]), "without control characters"),
        (_points([65, 0xD800, 0]), "that UTF-8 can carry"),
        (_points([65, 0xDFFF, 66]), "that UTF-8 can carry"),
        (_points([65, 0x110000, 66]), "that UTF-8 can carry"),
        (_points([0xFFFFFFFF, 0, 0]), "that UTF-8 can carry"),
        (_points([0x11000000, 0, 0]).astype(">U3"), "that UTF-8 can carry"),
    ],
)
def test_an_id_that_json_cannot_carry_is_refused(array: NDArray[Any], words: str) -> None:
    """N10: an id that no answer could hold is refused, before a string is made of its code points."""
    with pytest.raises(LoadError) as refused:
        _read(array)
    assert (refused.value.code, refused.value.stage) == (LoadCode.IDS_INVALID, Stage.CHECK)
    assert words in refused.value.detail


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", LoadCode.BAD_MAGIC),
        (npy_bytes(np.arange(5))[:-1], LoadCode.SIZE_MISMATCH),
        (npy_bytes(np.arange(5, dtype=np.int32)), LoadCode.DTYPE_NOT_ALLOWED),
        (npy_bytes(np.arange(5.0)), LoadCode.DTYPE_NOT_ALLOWED),
        (npy_bytes(np.array([b"a"] * 5)), LoadCode.DTYPE_NOT_ALLOWED),
        (raw_npy(header_text("'|O'", "(5,)")), LoadCode.DTYPE_NOT_ALLOWED),
        (raw_npy(header_text("'<U0'", "(5,)")), LoadCode.DTYPE_NOT_ALLOWED),
        (npy_bytes(np.arange(5).reshape(5, 1)), LoadCode.IDS_INVALID),
        (npy_bytes(np.array(["a" * (MAX_ID_LENGTH + 1)] * 5)), LoadCode.IDS_INVALID),
    ],
)
def test_a_file_that_holds_no_ids_is_refused_at_the_gate(content: bytes, code: LoadCode) -> None:
    """N10: the header decides, and the refusal says that it is about the ids file."""
    with pytest.raises(LoadError, match=r"^ids file: ") as refused:
        read_ids(BytesReader(content), rows=5)
    assert (refused.value.code, refused.value.stage) == (code, Stage.GATE)
    assert refused.value.facts["file"] == "ids"


def test_the_longest_id_is_allowed() -> None:
    """The limit itself passes."""
    assert _read(np.array(["a" * MAX_ID_LENGTH])).values.tolist() == ["a" * MAX_ID_LENGTH]


def test_reading_ids_is_cancelled_between_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load that is no longer wanted ends, and progress counts the bytes."""
    monkeypatch.setattr(ids_module, "CHUNK_BYTES", 64)
    content = npy_bytes(np.arange(100))
    seen: list[int] = []
    read_ids(BytesReader(content), rows=100, progress=seen.append)
    assert seen == [*range(128 + 64, len(content), 64), len(content)]
    with pytest.raises(LoadError) as refused:
        read_ids(BytesReader(content), rows=100, cancelled=lambda: True)
    assert refused.value.code is LoadCode.CANCELLED


@given(st.lists(st.text(max_size=6), min_size=1, max_size=8))
def test_any_texts_pass_exactly_when_each_is_an_id_and_unique(texts: list[str]) -> None:
    """The vectorised checks say what the plain ones say, also where chunks meet."""
    array = np.array(texts, dtype="U6")
    # NumPy takes NULs at the end for padding.
    seen = [text.rstrip("\0") for text in texts]
    good = len(set(seen)) == len(seen) and all(map(_is_id, seen))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids_module, "CHUNK_BYTES", 48)
        try:
            values = _read(array).values
        except LoadError:
            assert not good
        else:
            assert good
            assert values.tolist() == seen


def _is_id(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return bool(text) and not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in text)
