"""Which heads are clear and small enough (row H13 of the catalogue), as tables."""

from __future__ import annotations

import pytest

from kosine.errors import BadRequest, HeadTooLarge
from kosine.http.heads import MAX_HEAD_BYTES, MAX_HEADERS, check_count, check_size, is_chunked

HOST = (b"host", b"x")


@pytest.mark.parametrize(
    ("headers", "version", "chunked"),
    [
        ([HOST], "1.1", False),
        ([HOST, (b"transfer-encoding", b"chunked")], "1.1", True),
        ([(b"transfer-encoding", b"Chunked"), HOST], "1.1", True),
        ([], "1.0", False),
        ([HOST], "1.0", False),
    ],
)
def test_a_clear_head_says_whether_its_body_is_chunked(
    headers: list[tuple[bytes, bytes]],
    version: str,
    chunked: bool,
) -> None:
    """HTTP/1.1 has one Host; HTTP/1.0 may do without."""
    assert chunked == is_chunked(headers, version=version)


@pytest.mark.parametrize(
    ("headers", "version"),
    [
        ([], "1.1"),
        ([HOST, HOST], "1.1"),
        ([HOST, (b"host", b"y")], "1.0"),
        ([], "0.9"),
        ([HOST, (b"transfer-encoding", b"gzip, chunked")], "1.1"),
        ([HOST, (b"transfer-encoding", b"identity")], "1.1"),
        ([HOST, (b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"identity")], "1.1"),
        ([HOST, (b"transfer-encoding", b"chunked")], "1.0"),
    ],
)
def test_a_head_that_could_be_read_two_ways_is_refused(
    headers: list[tuple[bytes, bytes]], version: str
) -> None:
    """No guessing."""
    with pytest.raises(BadRequest):
        is_chunked(headers, version=version)


def test_as_many_headers_as_allowed_pass_and_one_more_does_not() -> None:
    """The limit itself is allowed."""
    check_count([HOST] * MAX_HEADERS)
    with pytest.raises(HeadTooLarge):
        check_count([HOST] * (MAX_HEADERS + 1))


def test_a_head_of_the_allowed_size_passes_and_one_byte_more_does_not() -> None:
    """Names, values, what stands around them, and the target all count."""
    value = b"v" * (MAX_HEAD_BYTES - len(b"/") - len(b"n: \r\n"))
    check_size(b"/", [(b"n", value)])
    for target, headers, more in ((b"/a", [(b"n", value)], 0), (b"/", [(b"n", value)], 1)):
        with pytest.raises(HeadTooLarge):
            check_size(target, headers, more=more)
