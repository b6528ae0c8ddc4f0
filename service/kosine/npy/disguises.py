"""What a file that is not an .npy looks like, so that its refusal says what to do instead.

Only ever a guess for a message: nothing is decided by it, and no byte of the file is repeated.
"""

from __future__ import annotations

__all__ = ("PREFIX_BYTES", "describe")

PREFIX_BYTES = 512
"""How much of a file's head a guess needs."""

_SAVE = "save one array with np.save(path, x)"
_UNPACK = "store the .npy itself, not compressed"

_SIGNATURES = (
    (b"\x1f\x8b", f"gzip data; {_UNPACK}"),
    (b"BZh", f"bzip2 data; {_UNPACK}"),
    (b"\xfd7zXZ\x00", f"xz data; {_UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"zstd data; {_UNPACK}"),
    (b"\x04\x22\x4d\x18", f"lz4 data; {_UNPACK}"),
    (b"PAR1", f"a Parquet file; read its vectors with pyarrow and {_SAVE}"),
    (b"\x89HDF\r\n\x1a\n", f"an HDF5 file; read its dataset with h5py and {_SAVE}"),
    (b"ARROW1", f"an Arrow file; read its vectors with pyarrow and {_SAVE}"),
    (b"FEA1", f"a Feather file; read its vectors with pyarrow and {_SAVE}"),
    (b"SQLite format 3\x00", f"an SQLite database; {_SAVE}"),
    (b"version https://git-lfs", "a Git LFS pointer; run `git lfs pull` to get the file it stands for"),
)
_PICKLE_PROTOCOLS = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))
_MARKUP = (b"<!doctype html", b"<html", b"<?xml", b"<error")
_LARGEST_VECTOR = 65_536


def describe(prefix: bytes, size: int) -> str:
    """`looks like ...; do ...` for the first `PREFIX_BYTES` of a file of `size` bytes."""
    if size == 0:
        return f"it is empty; {_SAVE}"
    for signature, guess in _SIGNATURES:
        if prefix.startswith(signature):
            return f"it looks like {guess}"
    if prefix.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return f"it looks like {_zip(prefix)}"
    if prefix.startswith(_PICKLE_PROTOCOLS):
        return f"it looks like a pickle, which is never read; {_SAVE}"
    if not any(prefix):
        return "it starts with zeros, as a file that was only preallocated; write it again"
    return f"it looks like {_text(prefix) or _numbers(prefix, size)}"


def _zip(prefix: bytes) -> str:
    if b"data.pkl" in prefix:
        return f"a PyTorch checkpoint; {_SAVE.replace('x)', 'tensor.numpy())')}"
    if b".npy" in prefix:
        return f"an .npz archive; {_SAVE} instead of np.savez"
    return f"a zip archive; {_UNPACK}"


def _text(prefix: bytes) -> str | None:
    head = prefix.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(_MARKUP):
        return "an HTML or XML page, such as the error page of a store or proxy; fetch the file again"
    # A cut may fall inside the last character.
    text = prefix.decode("utf-8", errors="ignore")
    if len(text.encode()) < len(prefix) - 3 or not all(c.isprintable() or c in "\t\r\n" for c in text):
        return None
    if head.startswith((b"{", b"[")):
        return f"JSON; {_SAVE}"
    return f"text, perhaps CSV; read it with np.loadtxt and {_SAVE}"


def _numbers(prefix: bytes, size: int) -> str:
    length = int.from_bytes(prefix[:4], "little")
    if 1 <= length <= _LARGEST_VECTOR and size % (4 + 4 * length) == 0:
        return f"an .fvecs file of {length} numbers a vector; {_SAVE} without the lengths"
    return f"binary data without a header, such as x.tofile makes; {_SAVE}"
