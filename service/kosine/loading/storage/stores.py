"""Every place a source may be in, behind one `Storage`: the scheme of its uri decides."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.local import LocalStorage
from kosine.loading.storage.credentials import CredentialsFile
from kosine.loading.storage.gcs import GcsStore, require_gcsfs
from kosine.loading.storage.io_thread import IoThread
from kosine.loading.storage.objects import ObjectName
from kosine.loading.storage.remote import RemoteStorage, Transfer
from kosine.loading.storage.s3 import S3Store, require_s3fs
from kosine.source_uri import BadUri, FileSource

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from kosine.loading.source import Fingerprint, Reader, Storage
    from kosine.loading.storage.objects import ObjectStore
    from kosine.settings import StoresSettings
    from kosine.source_uri import SourceUri, UriPolicy

__all__ = ("Stores",)


class Stores:
    """Implements `Storage`. Thread-safe; connections are opened when they are first needed."""

    def __init__(
        self, settings: StoresSettings, *, policy: UriPolicy, transfer: Transfer | None = None
    ) -> None:
        self._settings = settings
        self._policy = policy
        self._local = LocalStorage(policy)
        self._transfer = transfer or Transfer(
            draw=random.Random().random,  # noqa: S311  spreads retries, keeps no secret
            parallel=settings.parallel,
            range_within=float(settings.request_timeout),
        )
        self._io = IoThread()
        self._lock = threading.Lock()
        self._stores: dict[_Access, ObjectStore] = {}
        self._remotes: dict[_Access, RemoteStorage] = {}

    def using(self, credentials: str | None) -> Storage:
        """See `Storage.using`."""
        return self if credentials is None else _Using(self, credentials)

    def fingerprint(self, uri: str, *, credentials: str | None = None) -> Fingerprint:
        """See `Storage.fingerprint`."""
        source = self._admitted(uri, Stage.FINGERPRINT)
        if isinstance(source, FileSource):
            return self._local.fingerprint(uri)
        remote = self._remote(_Access(source.scheme, credentials))
        return remote.fingerprint(uri, ObjectName(source.bucket, source.key))

    def open(
        self, uri: str, fingerprint: Fingerprint, *, credentials: str | None = None
    ) -> AbstractContextManager[Reader]:
        """See `Storage.open`."""
        source = self._admitted(uri, Stage.GATE)
        if isinstance(source, FileSource):
            return self._local.open(uri, fingerprint)
        remote = self._remote(_Access(source.scheme, credentials))
        return remote.open(uri, ObjectName(source.bucket, source.key), fingerprint)

    def close(self) -> None:
        """Call off all requests and close all connections."""
        self._io.close(self._close_stores())

    async def _close_stores(self) -> None:
        for store in self._stores.values():
            await store.close()

    def _admitted(self, uri: str, stage: Stage) -> SourceUri:
        """Configuration has held it against the policy before; here is where it is opened."""
        try:
            return self._policy.admit(uri)
        except BadUri as error:
            raise LoadError(LoadCode.BAD_URI, str(error), stage=stage) from None

    def _remote(self, access: _Access) -> RemoteStorage:
        with self._lock:
            if access not in self._remotes:
                store = self._stores[access] = self._store(access)
                self._remotes[access] = RemoteStorage(store, io=self._io, transfer=self._transfer)
            return self._remotes[access]

    def _store(self, access: _Access) -> ObjectStore:
        idle, credentials = float(self._settings.idle_timeout), self._file_of(access.credentials)
        if access.scheme == "s3":
            require_s3fs()
            return S3Store(self._settings.s3, idle_timeout=idle, credentials=credentials)
        require_gcsfs()
        return GcsStore(self._settings.gcs, idle_timeout=idle, credentials=credentials)

    def _file_of(self, name: str | None) -> CredentialsFile | None:
        if name is None:
            return None
        if self._settings.credentials_dir is None:
            raise LoadError(
                LoadCode.SOURCE_FORBIDDEN,
                f"credentials {name} are asked for, and service.stores.credentials_dir names no folder to "
                "find them in; set it, or remove credentials from the index",
                stage=Stage.FINGERPRINT,
            )
        return CredentialsFile(Path(self._settings.credentials_dir, name))


@dataclass(frozen=True, slots=True)
class _Access:
    """One client each."""

    scheme: str
    credentials: str | None


@dataclass(frozen=True, slots=True)
class _Using:
    """Implements `Storage` by `Stores`, with other credentials than those of the process."""

    stores: Stores
    credentials: str

    def using(self, credentials: str | None) -> Storage:
        """See `Storage.using`."""
        return self.stores.using(credentials)

    def fingerprint(self, uri: str) -> Fingerprint:
        """See `Storage.fingerprint`."""
        return self.stores.fingerprint(uri, credentials=self.credentials)

    def open(self, uri: str, fingerprint: Fingerprint) -> AbstractContextManager[Reader]:
        """See `Storage.open`."""
        return self.stores.open(uri, fingerprint, credentials=self.credentials)
