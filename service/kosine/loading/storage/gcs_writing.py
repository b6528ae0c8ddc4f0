"""Writes to GCS: conditional by generation, large objects as resumable uploads.

After a failure a resumable upload asks how much has arrived and goes on from there, so a bad line costs the
part in flight at most.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

from kosine.loading.storage.errors import Kind, StoreError
from kosine.loading.storage.gcs import GcsStore, object_path
from kosine.loading.storage.objects import ObjectFacts, ObjectName
from kosine.loading.storage.writing import Listed

if TYPE_CHECKING:
    from kosine.settings import GcsSettings

__all__ = ("GcsWritableStore",)

_PART_BYTES = 8 * 2**20
"""A multiple of 256 KiB, as all parts but the last must be."""
_RECEIVED = re.compile(r"bytes=0-(\d+)")
_DONE = frozenset({200, 201})
_GOING_ON = 308
_ENDED = frozenset({200, 204, 404, 410, 499})
"""499 is what Google answers where an upload was called off."""
_CONTENT = {"Content-Type": "application/octet-stream"}


class GcsWritableStore(GcsStore):
    """Implements `WritableStore`."""

    access = "read_write"

    def __init__(self, settings: GcsSettings, *, idle_timeout: float, part_bytes: int = _PART_BYTES) -> None:
        super().__init__(settings, idle_timeout=idle_timeout)
        self.part_bytes = part_bytes

    async def put(self, name: ObjectName, content: memoryview, *, replacing: ObjectFacts | None) -> None:
        """See `WritableStore.put`."""
        target = _insert(name, "media", replacing.version if replacing is not None else None)
        async with self.requested("POST", target, _CONTENT, body=content):
            pass

    async def begin_upload(self, name: ObjectName, *, size: int) -> _Resumable:
        """See `WritableStore.begin_upload`."""
        headers = {"X-Upload-Content-Length": str(size)}
        async with self.requested("POST", _insert(name, "resumable", None), headers) as response:
            session = parse_qs(urlsplit(response.headers.get("Location", "")).query).get("upload_id")
        if not session:
            raise StoreError(Kind.REFUSED, "the store began no upload: its answer has no upload_id")
        # At our endpoint, whatever host the store calls itself: the credentials go nowhere else.
        bucket, key = quote(name.bucket, safe=""), quote(session[0], safe="")
        own_name = f"name={quote(name.key, safe='')}"
        target = f"upload/storage/v1/b/{bucket}/o?uploadType=resumable&{own_name}&upload_id={key}"
        return _Resumable(self, target, size)

    async def remove(self, name: ObjectName, token: str) -> None:
        """See `WritableStore.remove`."""
        target = f"storage/{object_path(name)}?ifGenerationMatch={token}"
        async with self.requested("DELETE", target):
            pass

    async def listing(self, bucket: str, prefix: str) -> list[Listed]:
        """See `WritableStore.listing`."""
        fields = "fields=items(name,generation,size,updated),nextPageToken"
        query = f"delimiter=/&prefix={quote(prefix, safe='')}&{fields}"
        found: list[Listed] = []
        token: str | None = ""
        while token is not None:
            target = f"storage/v1/b/{quote(bucket, safe='')}/o?{query}&pageToken={quote(token, safe='')}"
            async with self.requested("GET", target) as response:
                page = json.loads(response.content)
            found += [_listed(bucket, item) for item in page.get("items", ())]
            token = page.get("nextPageToken")
        return found


class _Resumable:
    """Implements `Upload`; the precondition was given when it began, and holds when the last part arrives."""

    def __init__(self, store: GcsWritableStore, target: str, size: int) -> None:
        self._store = store
        self._target = target
        self._size = size
        self._begun = 0
        """Where the current part starts."""
        self._arrived = 0
        self._certain = True
        """Whether nothing was sent that has not been answered."""

    async def send(self, part: memoryview) -> None:
        """See `Upload.send`."""
        stop = self._begun + len(part)
        if not self._certain:
            self._arrived = await self._asked(f"bytes */{self._size}")
        if not self._begun <= self._arrived <= stop:
            raise StoreError(Kind.REFUSED, f"the store has {self._arrived} bytes of {self._begun} to {stop}")
        while self._arrived < stop:
            span = f"bytes {self._arrived}-{stop - 1}/{self._size}"
            self._certain = False
            before = self._arrived
            self._arrived = await self._asked(span, part[self._arrived - self._begun :])
            self._certain = True
            if self._arrived <= before:
                raise StoreError(Kind.TRANSIENT, "the store took nothing of a part")
        self._certain, self._begun = True, stop

    async def complete(self) -> None:
        """See `Upload.complete`: it was, by the last part."""
        if self._arrived != self._size:
            raise StoreError(Kind.REFUSED, f"sent {self._arrived} bytes of {self._size}")

    async def abort(self) -> None:
        """See `Upload.abort`."""
        async with self._store.requested("DELETE", self._target, answers=_ENDED):
            pass

    async def _asked(self, span: str, content: memoryview | None = None) -> int:
        """How many bytes have arrived after this request."""
        headers = {"Content-Range": span} | (_CONTENT if content is not None else {"Content-Length": "0"})
        answers = _DONE | {_GOING_ON}
        async with self._store.requested(
            "PUT", self._target, headers, body=content, answers=answers
        ) as response:
            if response.status in _DONE:
                return self._size
            found = _RECEIVED.fullmatch(response.headers.get("Range", ""))
            return int(found[1]) + 1 if found is not None else 0


def _insert(name: ObjectName, kind: str, generation: str | None) -> str:
    """Where an object is made, if that is the generation there; None: if there is none."""
    bucket, key = quote(name.bucket, safe=""), quote(name.key, safe="")
    precondition = f"ifGenerationMatch={generation or 0}"
    return f"upload/storage/v1/b/{bucket}/o?uploadType={kind}&name={key}&{precondition}"


def _listed(bucket: str, item: dict[str, Any]) -> Listed:
    return Listed(
        name=ObjectName(bucket, item["name"]),
        token=str(item["generation"]),
        modified=datetime.fromisoformat(item["updated"]).timestamp(),
    )
