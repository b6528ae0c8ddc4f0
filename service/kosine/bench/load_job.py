"""What the load process is told and what it tells: length-prefixed MessagePack over its pipes.

Times are seconds of the machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

from typing import BinaryIO, Generic, TypeVar

import msgspec
from msgspec import Struct

__all__ = ("NO_ANSWER", "Channel", "Failed", "Finished", "Job", "Progress", "Reply", "Started", "Target")

NO_ANSWER = 2**32 - 1
"""In `Finished.answer`, of a request that was not answered with 200."""

_LENGTH_BYTES = 8


class Target(Struct, frozen=True, kw_only=True, tag=True):
    """Where the requests go; complete HTTP/1.1 requests, numbered from 0."""

    host: str
    port: int
    requests: list[bytes]


class Job(Struct, frozen=True, kw_only=True, tag=True):
    """One load. Closed loop, unless `arrivals` say when to send."""

    connections: int
    seconds: float
    timeout: float
    """An answer that comes later than this after the intended send is a failure."""
    order: bytes
    """uint32 request numbers, repeated as long as needed."""
    arrivals: bytes | None = None
    """float64 seconds from the start, ascending."""
    limit: int | None = None
    """Closed loop: stop after this many requests, if that is sooner."""


class Started(Struct, frozen=True, tag=True):
    """The connections stand, and the load begins at that time."""

    at: float


class Progress(Struct, frozen=True, tag=True):
    """So far."""

    answered: int
    failed: int


class Finished(Struct, frozen=True, kw_only=True, tag=True):
    """Every request in columns of equal length, in the order in which they ended."""

    cpu_seconds: float
    stopped: float
    backlog: int
    """Most requests that were due and found no free connection; open loop."""
    intended: bytes
    """float64. In a closed loop the time it was sent."""
    sent: bytes
    """float64"""
    done: bytes
    """float64"""
    request: bytes
    """uint32"""
    outcome: bytes
    """uint32, index into `outcomes`."""
    answer: bytes
    """uint32, index into `answers`, or NO_ANSWER."""
    queue: bytes
    """float64 seconds, NaN where the answer did not say."""
    engine: bytes
    """float64 seconds, NaN where the answer did not say."""
    outcomes: list[str]
    """The first is "ok"."""
    answers: list[tuple[int, bytes]]
    """Distinct pairs of request and body."""


class Failed(Struct, frozen=True, tag=True):
    """The load could not begin."""

    detail: str


Reply = Started | Progress | Finished | Failed

T = TypeVar("T")


class Channel(Generic[T]):
    """Messages of type T over a pair of pipes; only ever between a parent and the process it started."""

    def __init__(self, source: BinaryIO, sink: BinaryIO, incoming: type[T]) -> None:
        self._source = source
        self._sink = sink
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(incoming)
        self._encoder = msgspec.msgpack.Encoder()

    def send(self, message: Struct) -> None:
        """Write one message. BrokenPipeError where the other side is gone."""
        body = self._encoder.encode(message)
        self._sink.write(len(body).to_bytes(_LENGTH_BYTES, "little"))
        self._sink.write(body)
        self._sink.flush()

    def receive(self) -> T | None:
        """The next message, or None when the other side has closed."""
        head = self._source.read(_LENGTH_BYTES)
        if len(head) < _LENGTH_BYTES:
            return None
        length = int.from_bytes(head, "little")
        body = self._source.read(length)
        return self._decoder.decode(body) if len(body) == length else None
