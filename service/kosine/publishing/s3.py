"""A prefix of an S3 bucket as a target.

The store compares for us: an object is made only where there is none (If-None-Match), the manifest is
replaced only where it is the one that was read (If-Match). There is no lock, so two publishers may write
objects side by side, each under its own names; whose manifest comes second is told. An answer that got lost
is asked for again: a refusal that our own first attempt caused is recognised by what is there then.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import random
from typing import TYPE_CHECKING, Any, TypeVar

from kosine.errors import StartupError
from kosine.loading.body import CHUNK_BYTES, read_chunks
from kosine.loading.manifest import MAX_BYTES
from kosine.loading.source import Fingerprint
from kosine.loading.storage.errors import Kind, StoreError
from kosine.loading.storage.io_thread import IoThread
from kosine.loading.storage.objects import ObjectName
from kosine.loading.storage.remote import RemoteStorage, Transfer
from kosine.loading.storage.retry import with_retries
from kosine.loading.storage.s3 import S3Store
from kosine.publishing.target import PublishConflict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from kosine.loading.storage.objects import ObjectFacts
    from kosine.settings import S3Settings

__all__ = ("S3Target",)

T = TypeVar("T")

PART_BYTES = 32 * 2**20
"""10 000 parts, the most there are, make 312 GiB."""
_IDLE_TIMEOUT = 60.0
_PART_WITHIN = 600.0


class S3Target:
    """Implements `Target`. `prefix` is empty or ends in a slash."""

    can_prune = False

    def __init__(
        self, bucket: str, prefix: str, settings: S3Settings, *, part_bytes: int = PART_BYTES
    ) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._part_bytes = part_bytes
        self._io = IoThread("kosine-publish")
        self._store = S3Store(settings, idle_timeout=_IDLE_TIMEOUT)
        self._draw = random.Random().random  # noqa: S311  spreads retries, keeps no secret
        self._remote = RemoteStorage(self._store, io=self._io, transfer=Transfer(draw=self._draw))
        self._seen: dict[str, ObjectFacts] = {}

    def uri(self, file: str) -> str:
        """See `Target.uri`."""
        return f"s3://{self._bucket}/{self._prefix}{file}"

    def exclusive(self, name: str) -> contextlib.AbstractContextManager[None]:
        """See `Target.exclusive`: a store has no locks; `commit` finds out."""
        del name
        return contextlib.nullcontext()

    def manifest(self, name: str) -> bytes | None:
        """See `Target.manifest`; remembers which one it was."""
        self._seen.pop(name, None)
        object_name = self._name(f"{name}.json")
        try:
            facts = self._ask(lambda: self._store.head(object_name))
        except StoreError as error:
            if error.kind is Kind.MISSING:
                return None
            raise self._refusal(error) from None
        if facts.size > MAX_BYTES:
            return bytes(MAX_BYTES + 1)
        self._seen[name] = facts
        content = bytearray(facts.size)
        for chunk in self._read(f"{name}.json", facts, lambda _: None):
            content[:] = chunk
        return bytes(content)

    def digest(self, file: str, progress: Callable[[int], None]) -> str | None:
        """See `Target.digest`: of all bytes, as the store sends them."""
        object_name, digest = self._name(file), hashlib.sha256()
        try:
            facts = self._ask(lambda: self._store.head(object_name))
        except StoreError as error:
            if error.kind is Kind.MISSING:
                return None
            raise self._refusal(error) from None
        for chunk in self._read(file, facts, progress):
            digest.update(chunk)
        return digest.hexdigest()

    def put(self, file: str, chunks: Iterable[memoryview], *, name: str) -> None:
        """See `Target.put`: one request, or parts that become the object at one moment."""
        del name
        digest = hashlib.sha256()
        parts = _parts(_hashed(chunks, digest), self._part_bytes)
        begun = list(itertools.islice(parts, 2))
        try:
            if len(begun) < 2:  # noqa: PLR2004  one request
                self._create(file, bytearray().join(begun))
            else:
                self._create_in_parts(file, itertools.chain(begun, parts))
        except StoreError as error:
            if error.kind is not Kind.CHANGED:
                raise self._refusal(error) from None
            there = self.digest(file, lambda _: None)
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

    def prune(self, name: str, *, keep: int) -> list[str]:
        """Never called: without a lock, what is removed may be what another publisher is about to name."""
        raise NotImplementedError

    def close(self) -> None:
        """Close all connections."""
        self._io.close(self._store.close())

    def _create(self, file: str, content: bytearray) -> None:
        object_name = self._name(file)
        self._ask(lambda: self._store.put(object_name, memoryview(content), replacing=None))

    def _create_in_parts(self, file: str, parts: Iterator[bytearray]) -> None:
        object_name = self._name(file)
        upload = self._ask(lambda: self._store.begin_upload(object_name))
        sent: list[dict[str, Any]] = []
        try:
            for number, part in enumerate(parts, 1):
                sent.append(self._part(object_name, upload, number, part))
            self._ask(lambda: self._store.complete_upload(object_name, upload, sent))
        except BaseException:
            with contextlib.suppress(StoreError):
                self._ask(lambda: self._store.abort_upload(object_name, upload))
            raise

    def _part(self, object_name: ObjectName, upload: str, number: int, part: bytearray) -> dict[str, Any]:
        return self._ask(lambda: self._store.upload_part(object_name, upload, number, memoryview(part)))

    def _name(self, file: str) -> ObjectName:
        return ObjectName(self._bucket, f"{self._prefix}{file}")

    def _read(self, file: str, facts: ObjectFacts, progress: Callable[[int], None]) -> Iterator[memoryview]:
        fingerprint = Fingerprint(token=facts.token, size=facts.size)
        with self._remote.open(self.uri(file), self._name(file), fingerprint) as reader:
            sizes = (min(CHUNK_BYTES, reader.size - start) for start in range(0, reader.size, CHUNK_BYTES))
            yield from read_chunks(
                reader, 0, sizes, sink=lambda _: None, cancelled=lambda: False, progress=progress
            )

    def _ask(self, attempt: Callable[[], Awaitable[T]]) -> T:
        policy = Transfer(draw=self._draw).policy
        return self._io.run(with_retries(attempt, policy=policy, within=_PART_WITHIN, draw=self._draw))

    def _refusal(self, error: StoreError) -> StartupError:
        return StartupError(
            f"cannot publish to s3://{self._bucket}/{self._prefix}: {error.detail}; what is served there has "
            "not changed"
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
    """Chunks in pieces of `size` bytes or, the last, fewer."""
    part = bytearray()
    for chunk in chunks:
        part += chunk
        while len(part) >= size:
            yield part[:size]
            part = part[size:]
    if part:
        yield part
