"""Writes to S3: conditional by ETag, large objects as multipart uploads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kosine.loading.storage.errors import Kind, StoreError
from kosine.loading.storage.objects import ObjectFacts, ObjectName
from kosine.loading.storage.s3 import S3Store
from kosine.loading.storage.writing import Listed

if TYPE_CHECKING:
    from kosine.settings import S3Settings

__all__ = ("S3WritableStore",)

_PART_BYTES = 32 * 2**20
"""10 000 parts, the most there are, make 312 GiB."""
_OF_A_PART = ("ETag", "ChecksumCRC32")
"""A store that knows checksums wants those of the parts again with the list of parts."""
_ABSENT = {"IfNoneMatch": "*"}


class S3WritableStore(S3Store):
    """Implements `WritableStore`."""

    def __init__(self, settings: S3Settings, *, idle_timeout: float, part_bytes: int = _PART_BYTES) -> None:
        super().__init__(settings, idle_timeout=idle_timeout)
        self.part_bytes = part_bytes

    async def put(self, name: ObjectName, content: memoryview, *, replacing: ObjectFacts | None) -> None:
        """See `WritableStore.put`."""
        condition = _ABSENT if replacing is None else {"IfMatch": replacing.etag or ""}
        await self.request("put_object", **_of(name), Body=bytes(content), **condition)

    async def begin_upload(self, name: ObjectName, *, size: int) -> _Multipart:
        """See `WritableStore.begin_upload`."""
        del size  # S3 counts parts, not bytes
        begun = await self.request("create_multipart_upload", **_of(name), ChecksumAlgorithm="CRC32")
        return _Multipart(self, name, str(begun["UploadId"]))

    async def remove(self, name: ObjectName, token: str) -> None:
        """See `WritableStore.remove`. Where versions are kept, an older one can be had back."""
        # Looked at as well: not every server knows If-Match of a delete.
        if (await self.head(name)).etag != token:
            raise StoreError(Kind.CHANGED, "it was replaced")
        await self.request("delete_object", **_of(name), IfMatch=token)

    async def listing(self, bucket: str, prefix: str) -> list[Listed]:
        """See `WritableStore.listing`."""
        found: list[Listed] = []
        page: dict[str, Any] = {"NextContinuationToken": None}
        while "NextContinuationToken" in page:
            more = page["NextContinuationToken"]
            token = {"ContinuationToken": more} if more is not None else {}
            page = await self.request("list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter="/", **token)
            found += [_listed(bucket, entry) for entry in page.get("Contents", ())]
        return found


class _Multipart:
    """Implements `Upload`. A part that is sent again replaces itself."""

    def __init__(self, store: S3WritableStore, name: ObjectName, upload: str) -> None:
        self._store = store
        self._name = name
        self._upload = upload
        self._sent: list[dict[str, Any]] = []

    async def send(self, part: memoryview) -> None:
        """See `Upload.send`; at least 5 MiB but for the last."""
        number = len(self._sent) + 1
        sent = await self._store.request(
            "upload_part",
            **_of(self._name),
            UploadId=self._upload,
            PartNumber=number,
            Body=bytes(part),
            ChecksumAlgorithm="CRC32",
        )
        self._sent.append({"PartNumber": number} | {mark: sent[mark] for mark in _OF_A_PART if mark in sent})

    async def complete(self) -> None:
        """See `Upload.complete`."""
        await self._store.request(
            "complete_multipart_upload",
            **_of(self._name),
            UploadId=self._upload,
            MultipartUpload={"Parts": self._sent},
            **_ABSENT,
        )

    async def abort(self) -> None:
        """See `Upload.abort`; parts cost money until then."""
        await self._store.request("abort_multipart_upload", **_of(self._name), UploadId=self._upload)


def _of(name: ObjectName) -> dict[str, str]:
    return {"Bucket": name.bucket, "Key": name.key}


def _listed(bucket: str, entry: dict[str, Any]) -> Listed:
    return Listed(
        name=ObjectName(bucket, entry["Key"]),
        token=entry["ETag"],
        modified=entry["LastModified"].timestamp(),
    )
