"""Objects of a store as the sequential reader of a load wants them: pinned, in order, and ahead of it.

A load decodes in one thread, chunk after chunk. Behind it a window of range requests is in flight, so the
store's latency is paid once and its bandwidth is shared by several connections; the memory of the window is
all it takes, and admission counts it. Blocks begin where chunks do, so a chunk is decoded where it was
received. A torn object cannot come out: each range names the generation it belongs to, and a last look must
find that generation still there.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
import time
from collections import deque
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.source import Fingerprint
from kosine.loading.storage.errors import Kind, StoreError, to_load_error
from kosine.loading.storage.io_thread import Closed
from kosine.loading.storage.retry import with_retries
from kosine.retries import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator
    from typing import Any

    from kosine.loading.storage.io_thread import IoThread
    from kosine.loading.storage.objects import ObjectFacts, ObjectName, ObjectStore

__all__ = ("RemoteReader", "RemoteStorage", "Transfer")

T = TypeVar("T")

_HEAD_BYTES = 64 * 2**10
"""Fetched by the first read: any header, so that the gate costs one request."""
_LONGEST_QUIET = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """How objects are fetched; times in seconds."""

    draw: Callable[[], float]
    """Uniform in [0, 1), for jitter."""
    parallel: int = 6
    """Range requests in flight of one load."""
    block_bytes: int = 8 * 2**20
    look_within: float = 20.0
    """A look with its retries."""
    range_within: float = 120.0
    """A range with its retries."""
    policy: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass(slots=True, eq=False)
class _Block:
    start: int
    memory: mmap.mmap
    length: int
    done: Future[None]

    @property
    def stop(self) -> int:
        return self.start + self.length


class RemoteReader:
    """One generation of an object. Implements `Reader`; reads in order are fast."""

    def __init__(self, source: _Source, facts: ObjectFacts) -> None:
        self.size = facts.size
        self.buffer_bytes = (source.transfer.parallel + 1) * source.transfer.block_bytes + _HEAD_BYTES
        self._source = source
        self._facts = facts
        self._lock = threading.Lock()
        self._head: bytearray | None = None
        self._window: deque[_Block] = deque()
        self._block_bytes = source.transfer.block_bytes
        self._lent: list[mmap.mmap] = []
        """Memory of the last two blocks lent, which is not written to."""
        self._spare: list[mmap.mmap] = []

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """See `Reader.read_into`."""
        view = buffer.cast("B")
        with self._lock, self._source.told(Stage.FETCH):
            self._check_end(offset + len(view))
            while len(view):
                piece = self._piece(offset)[: len(view)]
                view[: len(piece)] = piece
                view, offset = view[len(piece) :], offset + len(piece)

    def lend(self, offset: int, size: int) -> memoryview | None:
        """See `Reader.lend`. The first that is lent tells where blocks begin and how long they are."""
        if size > self._source.transfer.block_bytes:
            return None
        with self._lock, self._source.told(Stage.FETCH):
            self._check_end(offset + size)
            if offset + size <= len(self._fetched_head()):
                return memoryview(self._fetched_head())[offset:][:size]
            del self._lent[:-1]  # its time is over
            block = self._block_at(offset, block_bytes=size)
            if offset + size > block.stop:
                return None
            block.done.result()
            self._lent.append(block.memory)
            return memoryview(block.memory)[offset - block.start :][:size]

    def verify(self) -> None:
        """See `Reader.verify`."""
        with self._source.told(Stage.FETCH):
            if self._source.look().token != self._facts.token:
                raise StoreError(Kind.CHANGED, "it was replaced")

    def close(self) -> None:
        """Call off what is in flight."""
        for block in self._window:
            block.done.cancel()
        self._window.clear()
        self._spare.clear()

    def _check_end(self, stop: int) -> None:
        if stop > self.size:
            raise StoreError(Kind.CHANGED, "it is shorter")

    def _piece(self, offset: int) -> memoryview:
        """What has been fetched from `offset` on, at least one byte; waits for it."""
        if offset < len(self._fetched_head()):
            return memoryview(self._fetched_head())[offset:]
        block = self._block_at(offset, block_bytes=self._source.transfer.block_bytes)
        block.done.result()
        return memoryview(block.memory)[offset - block.start : block.length]

    def _fetched_head(self) -> bytearray:
        if self._head is None:
            head = bytearray(min(_HEAD_BYTES, self.size))
            self._source.fetch(self._facts, 0, memoryview(head)).result()
            self._head = head
        return self._head

    def _block_at(self, offset: int, *, block_bytes: int) -> _Block:
        """The block `offset` lies in; one of `block_bytes` that begins there if none in flight does."""
        if not self._window or not self._window[0].start <= offset < self._window[-1].stop:
            self.close()  # memory still written to is not used again
            self._block_bytes = min(block_bytes, self.size)
            self._extend(offset)
        while self._window[0].stop <= offset:
            passed = self._window.popleft()
            if passed.done.done():
                self._spare.append(passed.memory)
            else:  # jumped over: its memory is still written to
                passed.done.cancel()
        while len(self._window) < self._source.transfer.parallel and self._window[-1].stop < self.size:
            self._extend(self._window[-1].stop)
        return self._window[0]

    def _extend(self, start: int) -> None:
        free = next((memory for memory in self._spare if memory not in self._lent), None)
        if free is not None:
            self._spare.remove(free)
        memory = free if free is not None else _memory(self._block_bytes)
        length = min(len(memory), self.size - start)
        target = memoryview(memory)[:length]
        known = memoryview(self._fetched_head())[start:][:length]
        target[: len(known)] = known
        done = self._source.fetch(self._facts, start + len(known), target[len(known) :])
        self._window.append(_Block(start, memory, length, done))


def _memory(size: int) -> mmap.mmap:
    """In huge pages where there are some: to get it page by page takes as long as to receive it."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class RemoteStorage:
    """The `Storage` of one scheme; whoever routes a uri here knows the object it names."""

    def __init__(self, store: ObjectStore, *, io: IoThread, transfer: Transfer) -> None:
        self._store = store
        self._io = io
        self._transfer = transfer
        self._quiet = _Quiet()

    def fingerprint(self, uri: str, name: ObjectName) -> Fingerprint:
        """See `Storage.fingerprint`."""
        source = self._source(uri, name)
        with source.told(Stage.FINGERPRINT):
            facts = source.look()
        return Fingerprint(token=facts.token, size=facts.size, modified=facts.modified)

    @contextlib.contextmanager
    def open(self, uri: str, name: ObjectName, fingerprint: Fingerprint) -> Iterator[RemoteReader]:
        """See `Storage.open`."""
        source = self._source(uri, name)
        with source.told(Stage.GATE):
            facts = source.look()
            if (facts.token, facts.size) != (fingerprint.token, fingerprint.size):
                raise StoreError(Kind.CHANGED, "it was replaced after it was looked at")
        reader = RemoteReader(source, facts)
        try:
            yield reader
        finally:
            reader.close()

    def _source(self, uri: str, name: ObjectName) -> _Source:
        return _Source(uri, name, self._store, self._io, self._transfer, self._quiet)


@dataclass(slots=True)
class _Quiet:
    """Until when the store asked to be left alone, by the monotonic clock."""

    until: float = 0.0


@dataclass(frozen=True, slots=True)
class _Source:
    """One object and how to ask for it, from loader threads."""

    uri: str
    name: ObjectName
    store: ObjectStore
    io: IoThread
    transfer: Transfer
    quiet: _Quiet

    def look(self) -> ObjectFacts:
        """Facts now."""
        left = self.quiet.until - time.monotonic()
        if left > 0:
            raise StoreError(Kind.TRANSIENT, f"the store asked to be left alone for {left:.0f} s more")

        async def attempt() -> ObjectFacts:
            return await self.store.head(self.name)

        return self.io.run(self._retried(attempt, within=self.transfer.look_within))

    def fetch(self, facts: ObjectFacts, start: int, target: memoryview) -> Future[None]:
        """Fill `target` from `start` on; an attempt goes on where the one before it was cut off."""
        return self.io.start(self._fetched(facts, start, target))

    async def _fetched(self, facts: ObjectFacts, start: int, target: memoryview) -> None:
        done = before = 0

        async def attempt() -> None:
            nonlocal done, before
            before = done
            stop = start + len(target)
            async with self.store.get_range(self.name, facts, start=start + done, stop=stop) as read_into:
                while done < len(target):
                    count = await read_into(target[done:])
                    if not count:
                        raise StoreError(Kind.TRANSIENT, "the store ended its answer early")
                    done += count

        if len(target):
            await self._retried(attempt, within=self.transfer.range_within, progressed=lambda: done > before)

    def _retried(
        self,
        attempt: Callable[[], Awaitable[T]],
        *,
        within: float,
        progressed: Callable[[], bool] = lambda: False,
    ) -> Coroutine[Any, Any, T]:
        return with_retries(
            attempt,
            policy=self.transfer.policy,
            within=within,
            draw=self.transfer.draw,
            progressed=progressed,
        )

    @contextlib.contextmanager
    def told(self, stage: Stage) -> Iterator[None]:
        """Turn what happened to a request into the LoadError of this load."""
        try:
            yield
        except StoreError as error:
            if error.after is not None:
                self.quiet.until = time.monotonic() + min(error.after, _LONGEST_QUIET)
            raise to_load_error(error, uri=self.uri, stage=stage) from None
        except (Closed, CancelledError):
            raise LoadError(LoadCode.CANCELLED, "the service is stopping", stage=stage) from None
