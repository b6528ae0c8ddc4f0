"""Which kind of target a person means."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from kosine.errors import LoadError, StartupError
from kosine.loading.storage.gcs import require_gcsfs
from kosine.loading.storage.gcs_writing import GcsWritableStore
from kosine.loading.storage.s3 import require_s3fs
from kosine.loading.storage.s3_writing import S3WritableStore
from kosine.publishing.bucket import BucketTarget
from kosine.publishing.local import LocalTarget
from kosine.source_uri import BadUri, parse_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kosine.publishing.target import Target
    from kosine.settings import StoresSettings

__all__ = ("open_target",)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
_FOLDER = r"[A-Za-z0-9_=+@,~\-][A-Za-z0-9._=+@,~\-]*"
_PREFIX = rf"((?:{_FOLDER}/)*(?:{_FOLDER})?)"
_BUCKETS = {"s3": r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]", "gs": r"[a-z0-9][a-z0-9._\-]{1,220}[a-z0-9]"}
_IDLE_TIMEOUT = 60.0


@contextlib.contextmanager
def open_target(text: str, stores: StoresSettings) -> Iterator[Target]:
    """The target that a person wrote. StartupError where it is none."""
    try:
        scheme = _SCHEME.match(text)
        if scheme is not None and scheme[1] in _BUCKETS:
            bucket, prefix = _place(scheme[1], text)
            with contextlib.closing(_bucket(scheme[1], bucket, prefix, stores)) as target:
                yield target
        else:
            yield _local(text, scheme)
    except LoadError as error:
        raise StartupError(f"target: {error.detail}") from None


def _place(scheme: str, text: str) -> tuple[str, str]:
    """Bucket and prefix."""
    found = re.fullmatch(rf"{scheme}://({_BUCKETS[scheme]})(?:/{_PREFIX})?", text)
    if found is None:
        raise StartupError(
            f"target: expected {scheme}://bucket/prefix/ of letters, digits and ._=+@,~-; no dot segments"
        )
    prefix = found[2] or ""
    return found[1], f"{prefix.rstrip('/')}/" if prefix else ""


def _bucket(scheme: str, bucket: str, prefix: str, stores: StoresSettings) -> BucketTarget:
    if scheme == "s3":
        require_s3fs()
        s3 = S3WritableStore(stores.s3, idle_timeout=_IDLE_TIMEOUT)
        return BucketTarget("s3", bucket, prefix, store=s3)
    require_gcsfs()
    gcs = GcsWritableStore(stores.gcs, idle_timeout=_IDLE_TIMEOUT)
    return BucketTarget("gs", bucket, prefix, store=gcs)


def _local(text: str, scheme: re.Match[str] | None) -> LocalTarget:
    if scheme is not None and scheme[1] != "file":
        raise StartupError(
            f"`{scheme[1]}://` is no target; expected a folder of this machine, s3://bucket/prefix/ or "
            "gs://bucket/prefix/. For other places publish to a folder, then copy the .npy files it names, "
            "and the .json last"
        )
    try:
        source = parse_source(text.rstrip("/"), typed=True)
    except BadUri as error:
        raise StartupError(f"target: {error}") from None
    folder = Path(str(source)).absolute()
    if not folder.is_dir():
        raise StartupError(f"the folder {folder} does not exist; make it first, or correct the target")
    return LocalTarget(folder)
