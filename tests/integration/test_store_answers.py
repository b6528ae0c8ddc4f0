"""Answers that no store should give: what is whole is taken, everything else is a LoadError that says why.

N14 of the fault catalogue, below what a proxy of faults can send.
"""

from __future__ import annotations

import contextlib
import gzip
import threading
import time
from typing import TYPE_CHECKING, Literal

import pytest

from kosine.errors import LoadCode, LoadError
from kosine.loading.storage.remote import Transfer
from kosine.loading.storage.stores import Stores
from kosine.retries import RetryPolicy
from kosine.settings import GcsSettings, S3Settings, StoresSettings
from kosine.source_uri import COMMAND_LINE
from kosine.units import Duration
from tests.kit.raw_store import CONTENT, facts, part, raw_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.kit.raw_store import Asked, RawStore

    Answer = Callable[[Asked], Iterator[bytes]]

pytestmark = pytest.mark.stores

Kind = Literal["s3", "gs"]
CHUNKED = "Transfer-Encoding: chunked\r\n"


@pytest.fixture(params=["s3", "gs"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """Of store; credentials are anybody's."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    chosen: Kind = request.param
    return chosen


def stores_at(store: RawStore, *, look_within: float = 20.0) -> Stores:
    settings = StoresSettings(
        s3=S3Settings(endpoint_url=store.endpoint, region="us-east-1"),
        gcs=GcsSettings(endpoint_url=store.endpoint, anon=True),
        idle_timeout=Duration(10.0),
    )
    transfer = Transfer(
        draw=lambda: 0.0,
        policy=RetryPolicy(attempts=2, first=0.01),
        look_within=look_within,
        block_bytes=32 * 2**10,
    )
    return Stores(settings, policy=COMMAND_LINE, transfer=transfer)


def read(kind: Kind, answer: Answer) -> bytes:
    """The object, looked at before and after; no more is read than there should be."""
    uri = f"{kind}://bucket/a.npy"
    with raw_store(kind, answer) as store, contextlib.closing(stores_at(store)) as stores:
        with stores.open(uri, stores.fingerprint(uri)) as reader:
            content = bytearray(len(CONTENT))
            reader.read_into(0, memoryview(content))
            reader.verify()
        return bytes(content)


def ranges(make: Callable[[Asked], bytes]) -> Answer:
    """Looks are answered well, ranges so."""

    def answer(asked: Asked) -> Iterator[bytes]:
        yield make(asked) if asked.stop else facts(asked)

    return answer


def looks(make: Callable[[Asked], bytes]) -> Answer:
    """Looks are answered so."""

    def answer(asked: Asked) -> Iterator[bytes]:
        yield make(asked)

    return answer


def closing(answer: Answer) -> Answer:
    """And the connection is closed."""

    def and_close(asked: Asked) -> Iterator[bytes]:
        yield from answer(asked)
        yield b""

    return and_close


def in_chunks(content: bytes) -> bytes:
    pieces = (content[start : start + 7777] for start in range(0, len(content), 7777))
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


WHOLE: dict[str, Answer] = {
    "as it should be": ranges(part),
    "chunked, without a length": ranges(
        lambda asked: part(asked, in_chunks(asked.content), length=False, headers=CHUNKED)
    ),
    "until the connection ends": closing(
        ranges(lambda asked: part(asked, length=False, headers="Connection: close\r\n"))
    ),
    "HTTP/1.0": closing(
        lambda asked: iter([part(asked, version="1.0") if asked.stop else facts(asked, version="1.0")])
    ),
    "more than was asked for": ranges(lambda asked: part(asked, asked.content + b"more" * 999)),
    "less than was said": closing(
        ranges(lambda asked: part(asked, asked.content[: -(-len(asked.content) // 2)]))
    ),
    "after 100 Continue": ranges(lambda asked: b"HTTP/1.1 100 Continue\r\n\r\n" + part(asked)),
    "another answer behind it": ranges(
        lambda asked: part(asked) + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"
    ),
    "an encoding that is none": ranges(
        lambda asked: part(asked, headers="Content-Encoding: aws-chunked\r\n")
    ),
    "a cookie": ranges(lambda asked: part(asked, headers="Set-Cookie: a=b\r\n")),
}


@pytest.mark.parametrize("answer", WHOLE.values(), ids=WHOLE)
def test_n14_what_is_whole_is_taken(kind: Kind, answer: Answer) -> None:
    """However it comes."""
    assert CONTENT == read(kind, answer)


REFUSED: dict[str, tuple[Answer, str]] = {
    "another range": (
        ranges(lambda asked: part(asked, span=f"bytes {asked.start + 1}-{asked.stop}/{len(CONTENT)}")),
        "expected bytes 0-",
    ),
    "a range of another object": (
        ranges(lambda asked: part(asked, span=f"bytes {asked.start}-{asked.stop - 1}/999999")),
        "it has 999999 bytes",
    ),
    "no range": (ranges(lambda asked: part(asked, span="")), "without a Content-Range"),
    "a range of who knows what": (
        ranges(lambda asked: part(asked, span=f"bytes {asked.start}-{asked.stop - 1}/*")),
        "without a Content-Range",
    ),
    "all of it": (ranges(lambda asked: part(asked, CONTENT, status="200 OK")), "got status 200"),
    "nothing": (ranges(lambda asked: part(asked, b"")), "ended its answer early"),
    "compressed on the way": (
        ranges(lambda asked: part(asked, gzip.compress(asked.content), headers="Content-Encoding: gzip\r\n")),
        "got Content-Encoding 'gzip'",
    ),
    "chunks that are none": (
        closing(ranges(lambda asked: part(asked, b"zz\r\nabc", length=False, headers=CHUNKED))),
        "did not answer",
    ),
    "a redirect to itself": (
        looks(lambda _: b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"),
        "a redirect, which is not followed",
    ),
    "a redirect of a range": (
        ranges(lambda asked: part(asked, b"", status="307 Temporary Redirect")),
        "a redirect, which is not followed",
    ),
    "no HTTP": (closing(looks(lambda _: b"\x00" * 500)), "did not answer"),
    "HTTP/0.9": (closing(looks(lambda _: b"<html>hello</html>")), "did not answer"),
    "headers without end": (
        looks(lambda _: b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 2000),
        "did not answer",
    ),
    "a header as long as an object": (
        looks(lambda _: b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2**20 + b"\r\n\r\n"),
        "did not answer",
    ),
    "less than no bytes": (closing(looks(lambda asked: facts(asked, size=-5))), "size"),
    "a size that is no number": (closing(looks(lambda asked: facts(asked, size="many"))), ""),
    "more bytes than there are": (looks(lambda asked: facts(asked, size=10**25)), "size"),
    "an error page without end": (
        closing(ranges(lambda asked: part(asked, b"x" * 2**20, status="503 Slow Down"))),
        "the store answered 503",
    ),
}


@pytest.mark.parametrize(("answer", "reason"), REFUSED.values(), ids=REFUSED)
def test_n14_everything_else_is_refused(kind: Kind, answer: Answer, reason: str) -> None:
    """With a reason, and never as a defect of ours."""
    with pytest.raises(LoadError) as refused:
        read(kind, answer)
    assert refused.value.code in {LoadCode.SOURCE_UNREADABLE, LoadCode.CHANGED_WHILE_READING}
    assert reason in refused.value.detail


def test_n14_a_store_that_dribbles_keeps_no_connection(kind: Kind) -> None:
    """Its headers come byte by byte, so it is never idle: given up, it sees the connection closed."""
    ending = threading.Event()

    def dribble(asked: Asked) -> Iterator[bytes]:
        for byte in facts(asked) * 99:
            if ending.wait(0.05):
                return
            yield bytes([byte])

    with raw_store(kind, dribble) as store, contextlib.closing(stores_at(store, look_within=0.5)) as stores:
        try:
            for _ in range(3):
                with pytest.raises(LoadError, match=r"more than 0\.5 s"):
                    stores.fingerprint(f"{kind}://bucket/a.npy")
            deadline = time.monotonic() + 20
            while store.open and time.monotonic() < deadline:
                time.sleep(0.01)
            assert set() == store.open
        finally:
            ending.set()
