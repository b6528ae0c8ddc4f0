"""Every place a source may be in, behind one `Storage`: the scheme of its uri decides."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.local import LocalStorage
from kosine.loading.storage.gcs import GcsStore, require_gcsfs
from kosine.loading.storage.io_thread import IoThread
from kosine.loading.storage.objects import ObjectName
from kosine.loading.storage.remote import RemoteStorage, Transfer
from kosine.loading.storage.s3 import S3Store, require_s3fs
from kosine.source_uri import BadUri, FileSource

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from kosine.loading.source import Fingerprint, Reader
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
        self._stores: dict[str, ObjectStore] = {}
        self._remotes: dict[str, RemoteStorage] = {}

    def fingerprint(self, uri: str) -> Fingerprint:
        """See `Storage.fingerprint`."""
        source = self._admitted(uri, Stage.FINGERPRINT)
        if isinstance(source, FileSource):
            return self._local.fingerprint(uri)
        return self._remote(source.scheme).fingerprint(uri, ObjectName(source.bucket, source.key))

    def open(self, uri: str, fingerprint: Fingerprint) -> AbstractContextManager[Reader]:
        """See `Storage.open`."""
        source = self._admitted(uri, Stage.GATE)
        if isinstance(source, FileSource):
            return self._local.open(uri, fingerprint)
        return self._remote(source.scheme).open(uri, ObjectName(source.bucket, source.key), fingerprint)

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

    def _remote(self, scheme: str) -> RemoteStorage:
        with self._lock:
            if scheme not in self._remotes:
                store = self._stores[scheme] = self._store(scheme)
                self._remotes[scheme] = RemoteStorage(store, io=self._io, transfer=self._transfer)
            return self._remotes[scheme]

    def _store(self, scheme: str) -> ObjectStore:
        idle = float(self._settings.idle_timeout)
        if scheme == "s3":
            require_s3fs()
            return S3Store(self._settings.s3, idle_timeout=idle)
        require_gcsfs()
        return GcsStore(self._settings.gcs, idle_timeout=idle)
