"""Google Cloud Storage by its JSON API, with the credentials that gcsfs finds.

Requests are our own, because gcsfs reads answers whole and hides their headers. Every range names the
generation, which is new with each write, whatever was written.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from datetime import datetime
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.storage.clients import Clients
from kosine.loading.storage.errors import Kind, StoreError, from_network
from kosine.loading.storage.gcs_transport import GcsTransport
from kosine.loading.storage.objects import ObjectFacts, check_range, checked_size

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from google.auth.exceptions import GoogleAuthError

    from kosine.loading.storage.credentials import CredentialsFile
    from kosine.loading.storage.gcs_transport import Answer
    from kosine.loading.storage.objects import ObjectName
    from kosine.settings import GcsSettings

__all__ = ("GcsStore", "object_path", "require_gcsfs")

_ENDPOINT = "https://storage.googleapis.com"
_FIELDS = "generation,size,timeCreated"
_DONE = frozenset({200, 204, 206})


def require_gcsfs() -> None:
    """LoadError `missing_extra` that names the command, where gcsfs is not installed."""
    # Else gcsfs asks the control plane about every bucket, for up to 60 s where that is out of reach.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    try:
        import gcsfs  # noqa: F401, PLC0415  an extra
    except ImportError:
        raise LoadError(
            LoadCode.MISSING_EXTRA,
            "gs:// sources need gcsfs, which is not installed; run: pip install 'kosine[gcs]'",
            stage=Stage.FINGERPRINT,
        ) from None


class GcsStore:
    """Implements `ObjectStore`. Create it on its loop."""

    access: ClassVar = "read_only"
    """What credentials are asked for."""

    def __init__(
        self, settings: GcsSettings, *, idle_timeout: float, credentials: CredentialsFile | None = None
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._endpoint = (settings.endpoint_url or _ENDPOINT).rstrip("/")
        self._idle_timeout = idle_timeout
        self._clients = Clients(self._connect)

    async def head(self, name: ObjectName) -> ObjectFacts:
        """See `ObjectStore.head`; the JSON API answers with the facts as a body of 100 bytes."""
        async with self.requested("GET", f"storage/{object_path(name)}?fields={_FIELDS}") as answer:
            return _facts(answer.content)

    @contextlib.asynccontextmanager
    async def get_range(
        self, name: ObjectName, facts: ObjectFacts, *, start: int, stop: int
    ) -> AsyncIterator[Callable[[memoryview], Awaitable[int]]]:
        """See `ObjectStore.get_range`."""
        target = f"download/storage/{object_path(name)}?alt=media&ifGenerationMatch={facts.version}"
        span = {"Range": f"bytes={start}-{stop - 1}"}
        async with self.requested("GET", target, span, stream=True) as answer:
            headers = answer.headers
            check_range(answer.status, headers, start=start, stop=stop, size=facts.size)
            if headers.get("x-goog-generation", facts.version) != facts.version:
                raise StoreError(Kind.CHANGED, "it was replaced")
            yield answer.body.read_into

    async def close(self) -> None:
        """See `ObjectStore.close`."""
        await self._clients.close()

    @contextlib.asynccontextmanager
    async def requested(
        self,
        method: str,
        target: str,
        headers: dict[str, str] | None = None,
        *,
        body: memoryview | None = None,
        answers: frozenset[int] = _DONE,
        stream: bool = False,
    ) -> AsyncIterator[Answer]:
        """The answer to one request for `target`; StoreError where its status is none of `answers`."""
        async with self._clients.use() as transport:
            with _classified():
                async with transport.requested(
                    method,
                    f"{self._endpoint}/{target}",
                    headers or {},
                    content=body,
                    answers=answers,
                    stream=stream,
                ) as answer:
                    yield answer

    async def _connect(self) -> tuple[GcsTransport, Callable[[], Awaitable[None]]]:
        with _classified():
            credentials = await asyncio.to_thread(
                _credentials, self.access, anon=self._settings.anon, file=self._credentials
            )
        transport = GcsTransport(credentials, idle_timeout=self._idle_timeout)
        return transport, transport.close


def object_path(name: ObjectName) -> str:
    """Where the JSON API has the object."""
    return f"v1/b/{quote(name.bucket, safe='')}/o/{quote(name.key, safe='')}"


def _credentials(access: str, *, anon: bool, file: CredentialsFile | None) -> Any:
    """Those of google-auth; None where requests carry none."""
    from gcsfs.credentials import GoogleCredentials  # noqa: PLC0415  an extra

    # Named, so that gcsfs does not go on to other ways, one of which opens a browser.
    token = "anon" if anon else "google_default"
    found = GoogleCredentials(
        project="", access=access, token=token if file is None else file.google_account(access)
    )
    return found.credentials


def _facts(body: bytes) -> ObjectFacts:
    try:
        found = json.loads(body)
        generation, size = str(int(found["generation"])), int(found["size"])
    except (ValueError, KeyError, TypeError):
        raise StoreError(Kind.REFUSED, "expected generation and size, got something else") from None
    return ObjectFacts(
        token=generation,
        size=checked_size(size),
        version=generation,
        modified=_written(found.get("timeCreated")),
    )


def _written(told: object) -> float | None:
    """In seconds since 1970; nothing depends on it, so what cannot be read is as good as nothing."""
    try:
        return datetime.fromisoformat(str(told)).timestamp()
    except ValueError:
        return None


@contextlib.contextmanager
def _classified() -> Iterator[None]:
    """Turn what requests, google-auth and gcsfs raise into a StoreError."""
    from google.auth.exceptions import GoogleAuthError, TransportError  # noqa: PLC0415  an extra
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    try:
        yield
    except (TransportError, HTTPError, HTTPException, OSError) as error:  # of requests all are OSErrors
        raise from_network(error) from None
    except GoogleAuthError as error:
        raise _without_token(error) from None
    except ValueError as error:
        raise StoreError(Kind.REFUSED, f"the client refused the request ({type(error).__name__})") from None


def _without_token(error: GoogleAuthError) -> StoreError:
    """Why there are no credentials, or no token for them; of what Google says only its error code."""
    from google.auth.exceptions import DefaultCredentialsError  # noqa: PLC0415  an extra

    if error.retryable:
        return StoreError(Kind.TRANSIENT, "no token could be had for the credentials now")
    if isinstance(error, DefaultCredentialsError):
        return StoreError(Kind.FORBIDDEN, f"no credentials were found ({type(error).__name__})")
    said = next((one.get("error") for one in error.args if isinstance(one, dict)), None)
    reason = said if isinstance(said, str) and said.isidentifier() else type(error).__name__
    return StoreError(Kind.FORBIDDEN, f"no token is given for the credentials ({reason})")
