"""A prefix of a bucket as a target, S3 or GCS.

The store compares for us: an object is made only where there is none, the manifest is replaced only where it
is the one that was read. There is no lock, so two publishers may write objects side by side, each under its
own names; whose manifest comes second is told. An answer that got lost is asked for again: a refusal that our
own first attempt caused is recognised by what is there then.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from kosine.errors import StartupError
from kosine.loading.body import CHUNK_BYTES, read_chunks
from kosine.loading.manifest import MAX_BYTES
from kosine.loading.source import Fingerprint
from kosine.loading.storage.errors import Kind, StoreError
from kosine.loading.storage.io_thread import IoThread
from kosine.loading.storage.objects import ObjectName
from kosine.loading.storage.remote import RemoteStorage, Transfer
from kosine.loading.storage.retry import with_retries
from kosine.publishing.target import PublishConflict, Stored
from kosine.retries import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from kosine.loading.storage.objects import ObjectFacts
    from kosine.loading.storage.writing import Listed, Upload, WritableStore

__all__ = ("BucketTarget",)

T = TypeVar("T")

_REQUEST_WITHIN = 600.0
"""Seconds, retries included."""
_REMOVED_WITHIN = 10.0
"""A removal that arrived later might meet what another publisher has begun to rely on."""


class BucketTarget:
    """Implements `Target`. `prefix` is empty or ends in a slash; `store` is closed with it."""

    def __init__(
        self,
        scheme: Literal["s3", "gs"],
        bucket: str,
        prefix: str,
        *,
        store: WritableStore,
        policy: RetryPolicy | None = None,
    ) -> None:
        self._scheme = scheme
        self._bucket = bucket
        self._prefix = prefix
        self._store = store
        self._io = IoThread("kosine-publish")
        self._draw = random.Random().random  # noqa: S311  spreads retries, keeps no secret
        self._transfer = Transfer(draw=self._draw, policy=policy or RetryPolicy())
        self._remote = RemoteStorage(store, io=self._io, transfer=self._transfer)
        self._seen: dict[str, ObjectFacts] = {}

    def uri(self, file: str) -> str:
        """See `Target.uri`."""
        return f"{self._scheme}://{self._bucket}/{self._prefix}{file}"

    def exclusive(self, name: str) -> contextlib.AbstractContextManager[None]:
        """See `Target.exclusive`: a store has no locks; `commit` finds out."""
        del name
        return contextlib.nullcontext()

    def manifest(self, name: str) -> bytes | None:
        """See `Target.manifest`; remembers which one it was."""
        self._seen.pop(name, None)
        facts = self._facts(f"{name}.json")
        if facts is None:
            return None
        if facts.size > MAX_BYTES:
            return bytes(MAX_BYTES + 1)
        self._seen[name] = facts
        return self._start(f"{name}.json", facts)

    def size(self, file: str) -> int | None:
        """See `Target.size`."""
        facts = self._facts(file)
        return facts.size if facts is not None else None

    def digest(self, file: str, progress: Callable[[int], None]) -> str | None:
        """See `Target.digest`: of all bytes, as the store sends them."""
        facts, digest = self._facts(file), hashlib.sha256()
        if facts is None:
            return None
        for chunk in self._read(file, facts, progress):
            digest.update(chunk)
        return digest.hexdigest()

    def put(self, file: str, chunks: Iterable[memoryview], *, size: int, name: str) -> None:
        """See `Target.put`: one request, or parts that become the object at one moment."""
        del name
        digest = hashlib.sha256()
        try:
            self._send(file, _hashed(chunks, digest), size)
        except StoreError as error:
            # MISSING: of an upload that is complete, and whose answer was lost.
            if error.kind not in (Kind.CHANGED, Kind.MISSING):
                raise self._refusal(error) from None
            there = self.digest(file, lambda _: None)
            if there is None and error.kind is Kind.MISSING:
                raise self._refusal(error) from None
            if there is None:
                raise PublishConflict(f"another publisher is writing {file}; publish again") from None
            if there != digest.hexdigest():
                raise StartupError(
                    f"{self.uri(file)} is there and has other content than its name says; remove it, and "
                    "publish again"
                ) from None

    def commit(self, name: str, content: bytes, *, replacing: bytes | None) -> None:
        """See `Target.commit`."""
        object_name, seen = self._name(f"{name}.json"), self._seen.get(name)
        if (seen is None) != (replacing is None):
            raise self._faster(name)
        try:
            self._ask(lambda: self._store.put(object_name, memoryview(content), replacing=seen))
        except StoreError as error:
            if error.kind not in (Kind.CHANGED, Kind.MISSING):
                raise self._refusal(error) from None
            if self.manifest(name) != content:
                raise self._faster(name) from None

    def listing(self) -> list[Stored]:
        """See `Target.listing`."""
        try:
            listed = self._ask(lambda: self._store.listing(self._bucket, self._prefix))
        except StoreError as error:
            raise self._refusal(error) from None
        return [self._stored(one) for one in listed if one.name.key != self._prefix]

    def read(self, stored: Stored) -> bytes:
        """See `Target.read`."""
        facts = self._facts(stored.file)
        return self._start(stored.file, facts) if facts is not None else b""

    def remove(self, stored: Stored) -> bool:
        """See `Target.remove`: at once or not at all, and only the generation that was listed."""
        object_name = self._name(stored.file)
        try:
            self._ask(lambda: self._store.remove(object_name, stored.token), within=_REMOVED_WITHIN)
        except StoreError as error:
            if error.kind in (Kind.CHANGED, Kind.MISSING):
                return False
            raise self._refusal(error) from None
        return True

    def close(self) -> None:
        """Close all connections."""
        self._io.close(self._store.close())

    def _send(self, file: str, chunks: Iterator[memoryview], size: int) -> None:
        object_name = self._name(file)
        if size <= self._store.part_bytes:
            content = memoryview(bytearray().join(chunks))
            self._ask(lambda: self._store.put(object_name, content, replacing=None))
            return
        upload = self._ask(lambda: self._store.begin_upload(object_name, size=size))
        try:
            for part in _parts(chunks, self._store.part_bytes):
                self._part(upload, part)
            self._ask(upload.complete)
        except BaseException:
            with contextlib.suppress(StoreError):
                self._ask(upload.abort)
            raise

    def _part(self, upload: Upload, part: bytearray) -> None:
        self._ask(lambda: upload.send(memoryview(part)))

    def _stored(self, listed: Listed) -> Stored:
        file = listed.name.key.removeprefix(self._prefix)
        return Stored(file=file, modified=listed.modified, token=listed.token)

    def _name(self, file: str) -> ObjectName:
        return ObjectName(self._bucket, f"{self._prefix}{file}")

    def _facts(self, file: str) -> ObjectFacts | None:
        object_name = self._name(file)
        try:
            return self._ask(lambda: self._store.head(object_name))
        except StoreError as error:
            if error.kind is Kind.MISSING:
                return None
            raise self._refusal(error) from None

    def _start(self, file: str, facts: ObjectFacts) -> bytes:
        """The first MAX_BYTES."""
        content = bytearray(min(facts.size, MAX_BYTES))
        fingerprint = Fingerprint(token=facts.token, size=facts.size)
        with self._remote.open(self.uri(file), self._name(file), fingerprint) as reader:
            reader.read_into(0, memoryview(content))
        return bytes(content)

    def _read(self, file: str, facts: ObjectFacts, progress: Callable[[int], None]) -> Iterator[memoryview]:
        fingerprint = Fingerprint(token=facts.token, size=facts.size)
        with self._remote.open(self.uri(file), self._name(file), fingerprint) as reader:
            sizes = (min(CHUNK_BYTES, reader.size - start) for start in range(0, reader.size, CHUNK_BYTES))
            yield from read_chunks(
                reader, 0, sizes, sink=lambda _: None, cancelled=lambda: False, progress=progress
            )

    def _ask(self, attempt: Callable[[], Awaitable[T]], *, within: float = _REQUEST_WITHIN) -> T:
        policy = self._transfer.policy
        return self._io.run(with_retries(attempt, policy=policy, within=within, draw=self._draw))

    def _refusal(self, error: StoreError) -> StartupError:
        return StartupError(
            f"cannot publish to {self.uri('')}: {error.detail}; what is served there has not changed"
        )

    def _faster(self, name: str) -> PublishConflict:
        return PublishConflict(
            f"another publisher was faster: {self.uri(f'{name}.json')} says something else now, and that is "
            "what serves; publish again"
        )


def _hashed(chunks: Iterable[memoryview], digest: Any) -> Iterator[memoryview]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def _parts(chunks: Iterable[memoryview], size: int) -> Iterator[bytearray]:
    """Chunks in pieces of `size` bytes; the last, maybe shorter, once all chunks have proved good."""
    part = bytearray()
    for chunk in chunks:
        part += chunk
        while len(part) > size:
            yield part[:size]
            part = part[size:]
    yield part
