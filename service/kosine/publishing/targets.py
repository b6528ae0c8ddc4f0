"""Which kind of target a person means."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from kosine.errors import LoadError, StartupError
from kosine.loading.storage.s3 import require_s3fs
from kosine.publishing.local import LocalTarget
from kosine.publishing.s3 import S3Target
from kosine.source_uri import BadUri, parse_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kosine.publishing.target import Target
    from kosine.settings import S3Settings, StoresSettings

__all__ = ("open_target",)

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
_BUCKET = r"[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]"
_FOLDER = r"[A-Za-z0-9_=+@,~\-][A-Za-z0-9._=+@,~\-]*"
_S3 = re.compile(rf"s3://({_BUCKET})(?:/((?:{_FOLDER}/)*(?:{_FOLDER})?))?")


@contextlib.contextmanager
def open_target(text: str, stores: StoresSettings) -> Iterator[Target]:
    """The target that a person wrote. StartupError where it is none."""
    try:
        if text.startswith("s3://"):
            require_s3fs()
            target = _s3(text, stores.s3)
            with contextlib.closing(target):
                yield target
        else:
            yield _local(text)
    except LoadError as error:
        raise StartupError(f"target: {error.detail}") from None


def _s3(text: str, settings: S3Settings) -> S3Target:
    found = _S3.fullmatch(text)
    if found is None:
        raise StartupError(
            "target: expected s3://bucket/prefix/ of letters, digits and ._=+@,~-; no dot segments"
        )
    prefix = found[2] or ""
    return S3Target(found[1], f"{prefix.rstrip('/')}/" if prefix else "", settings)


def _local(text: str) -> LocalTarget:
    scheme = _SCHEME.match(text)
    if scheme is not None and scheme[1] != "file":
        raise StartupError(
            f"`{scheme[1]}://` is no target in this version; expected a folder of this machine or "
            "s3://bucket/prefix/. Publish to a folder, then copy the .npy files it names, and the .json last"
        )
    try:
        source = parse_source(text.rstrip("/"), typed=True)
    except BadUri as error:
        raise StartupError(f"target: {error}") from None
    folder = Path(str(source)).absolute()
    if not folder.is_dir():
        raise StartupError(f"the folder {folder} does not exist; make it first, or correct the target")
    return LocalTarget(folder)
