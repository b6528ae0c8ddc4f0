"""Mask files: what is refused, by which code, and what a version makes of what was read."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kosine.errors import LoadError, UnknownMask
from kosine.loading.local import LocalStorage
from kosine.loading.masks import named_masks, read_mask, read_mask_header
from kosine.serving.masks import FileRows
from kosine.source_uri import COMMAND_LINE
from tests.kit.npy_files import npy_bytes
from tests.kit.serving import masks_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kosine.loading.source import Reader

ROWS = 5
FLAGS = np.array([True, False, True, True, False])


def opened(folder: Path, content: bytes, read: Callable[[Reader], Any]) -> Any:
    """What `read` makes of a file with that content."""
    path = folder / "mask.npy"
    path.write_bytes(content)
    storage = LocalStorage(COMMAND_LINE)
    with storage.open(str(path), storage.fingerprint(str(path))) as reader:
        return read(reader)


def test_a_mask_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Flag by flag, whatever version the header has."""
    found = opened(tmp_path, npy_bytes(FLAGS), lambda reader: read_mask(reader, name="a", rows=ROWS))
    assert FLAGS.tolist() == found.flags.tolist()


def test_a_long_mask_is_read_chunk_by_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks join without a gap."""
    monkeypatch.setattr("kosine.loading.masks.CHUNK_BYTES", 7)
    flags = np.random.default_rng(1).random(100) < 0.5
    found = opened(tmp_path, npy_bytes(flags), lambda reader: read_mask(reader, name="a", rows=100))
    assert flags.tolist() == found.flags.tolist()


def test_a_refused_mask_leaves_no_thread_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads ahead has ended with the refusal, though somebody keeps that and all it refers to."""
    monkeypatch.setattr("kosine.loading.masks.CHUNK_BYTES", 7)
    flags = np.full(100, 2, np.uint8).view(np.bool_)
    with pytest.raises(LoadError) as refused:
        opened(tmp_path, npy_bytes(flags), lambda reader: read_mask(reader, name="a", rows=100))
    assert [] == [each.name for each in threading.enumerate() if each.name.startswith("kosine-sink")]
    assert "mask_invalid" == refused.value.code.value


@pytest.mark.parametrize(
    ("content", "code", "told"),
    [
        (npy_bytes(FLAGS.astype(np.uint8)), "dtype_not_allowed", "expected bool (b1), got uint8"),
        (npy_bytes(FLAGS.astype(np.float32)), "dtype_not_allowed", "flags.astype(bool)"),
        (npy_bytes(FLAGS[:4]), "mask_length", "expected one bool for each of 5 rows, got 4"),
        (npy_bytes(np.ones(6, np.bool_)), "mask_length", "expected one bool for each of 5 rows, got 6"),
        (npy_bytes(FLAGS.reshape(5, 1)), "mask_invalid", "expected a 1-D array, got (5, 1)"),
        (npy_bytes(FLAGS)[:-1], "size_mismatch", "1 are missing"),
        (npy_bytes(FLAGS) + b"\1", "size_mismatch", "1 are too many"),
        (b"PK\3\4", "bad_magic", "expected an .npy file"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_by_its_header(
    tmp_path: Path, content: bytes, code: str, told: str
) -> None:
    """Before its body is read, with its name and the numbers."""
    with pytest.raises(LoadError) as refused:
        opened(tmp_path, content, lambda reader: read_mask_header(reader, name="in_stock", rows=ROWS))
    assert (code, "gate", "in_stock") == (
        refused.value.code,
        refused.value.stage,
        refused.value.facts["mask"],
    )
    assert refused.value.detail.startswith("mask in_stock: ")
    assert told in refused.value.detail


def test_a_byte_that_is_no_bool_is_refused(tmp_path: Path) -> None:
    """NumPy would take it for true in one place and not in another."""
    content = npy_bytes(FLAGS)[:-1] + b"\2"
    with pytest.raises(LoadError) as refused:
        opened(tmp_path, content, lambda reader: read_mask(reader, name="a", rows=ROWS))
    assert ("mask_invalid", "check") == (refused.value.code, refused.value.stage)


def test_dropped_rows_take_their_flags_with_them(tmp_path: Path) -> None:
    """What is served has a flag a row, in the order of the rows."""
    read = opened(tmp_path, npy_bytes(FLAGS), lambda reader: read_mask(reader, name="a", rows=ROWS))
    rows = FileRows(count=ROWS, kept=np.array([True, True, False, True, False]))
    mask = named_masks({"a": read}, rows).named["a"]
    assert ([True, False, True], 2) == (mask.flags.tolist(), mask.true)
    assert not mask.flags.flags.writeable


def test_a_mask_with_the_content_it_had_stays_the_same_object(tmp_path: Path) -> None:
    """Its time of loading tells since when it has been so, and queries go on sharing it."""
    rows = FileRows(count=ROWS)

    def read(flags: Any) -> Any:
        return opened(tmp_path, npy_bytes(flags), lambda reader: read_mask(reader, name="a", rows=ROWS))

    before = named_masks({"a": read(FLAGS), "b": read(FLAGS)}, rows)
    after = named_masks({"a": read(FLAGS), "b": read(~FLAGS)}, rows, before=before)
    assert before.named["a"] is after.named["a"]
    assert before.named["b"] is not after.named["b"]


def test_an_unknown_mask_is_refused_with_those_that_are_known() -> None:
    """In order; what was asked for is shown without what a terminal would act on."""
    masks = masks_of({"z": [True] * 4, "a": [True] * 4})
    with pytest.raises(UnknownMask) as refused:
        masks.find("in\n")
    assert "this index has no mask 'in\\n'; known are a, z" == refused.value.detail
    assert {"mask": "'in\\n'", "known": ["a", "z"]} == refused.value.facts
    with pytest.raises(UnknownMask, match="it has none"):
        masks_of({}).find("a")
