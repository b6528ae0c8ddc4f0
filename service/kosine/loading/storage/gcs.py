"""Google Cloud Storage by its JSON API, with the credentials that gcsfs finds.

Requests are our own, because gcsfs reads answers whole and hides their headers. Every range names the
generation, which is new with each write, whatever was written.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.storage.clients import Clients
from kosine.loading.storage.errors import Kind, StoreError, from_network, from_status
from kosine.loading.storage.objects import ObjectFacts, check_range
from kosine.retries import retry_after

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from kosine.loading.storage.credentials import CredentialsFile
    from kosine.loading.storage.objects import ObjectName
    from kosine.settings import GcsSettings

__all__ = ("GcsStore", "object_path", "require_gcsfs")

_ENDPOINT = "https://storage.googleapis.com"
_CONNECT_TIMEOUT = 5.0
_CONNECTIONS = 64
_FACTS_LIMIT = 64 * 2**10
_DONE = frozenset({200, 204, 206})
_SENT_BYTES = 256 * 2**10


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
        """See `ObjectStore.head`; the JSON API answers with the facts as a body of 50 bytes."""
        async with self.requested("GET", f"storage/{object_path(name)}?fields=generation,size") as response:
            return _facts(await response.content.read(_FACTS_LIMIT))

    @contextlib.asynccontextmanager
    async def get_range(
        self, name: ObjectName, facts: ObjectFacts, *, start: int, stop: int
    ) -> AsyncIterator[Callable[[memoryview], Awaitable[int]]]:
        """See `ObjectStore.get_range`."""
        target = f"download/storage/{object_path(name)}?alt=media&ifGenerationMatch={facts.version}"
        async with self.requested("GET", target, {"Range": f"bytes={start}-{stop - 1}"}) as response:
            headers = response.headers
            check_range(
                response.status, headers.get("Content-Range"), start=start, stop=stop, size=facts.size
            )
            if headers.get("x-goog-generation", facts.version) != facts.version:
                raise StoreError(Kind.CHANGED, "it was replaced")

            async def read_into(buffer: memoryview) -> int:
                piece = await response.content.read(len(buffer))
                buffer[: len(piece)] = piece
                return len(piece)

            yield read_into

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
    ) -> AsyncIterator[Any]:
        """The answer to one request for `target`; StoreError where its status is none of `answers`."""
        from yarl import URL  # noqa: PLC0415  comes with aiohttp

        url = URL(f"{self._endpoint}/{target}", encoded=True)
        signed = dict(headers or {})
        content = None
        if body is not None:
            signed["Content-Length"], content = str(len(body)), _once(body)
        async with self._clients.use() as (session, credentials):
            with _classified():
                # Fetching a new token blocks.
                await asyncio.to_thread(credentials.apply, signed)
                async with session.request(
                    method, url, headers=signed, data=content, allow_redirects=False
                ) as response:
                    if response.status not in answers:
                        after = retry_after(response.headers.get("Retry-After"), now=datetime.now(UTC))
                        raise from_status(response.status, after=after)
                    yield response

    async def _connect(self) -> tuple[tuple[Any, Any], Callable[[], Awaitable[None]]]:
        import aiohttp  # noqa: PLC0415  an extra

        with _classified():
            credentials = await asyncio.to_thread(
                _credentials, self.access, anon=self._settings.anon, file=self._credentials
            )
        session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=_CONNECT_TIMEOUT, sock_read=self._idle_timeout
            ),
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=True,
        )
        return (session, credentials), session.close


def object_path(name: ObjectName) -> str:
    """Where the JSON API has the object."""
    return f"v1/b/{quote(name.bucket, safe='')}/o/{quote(name.key, safe='')}"


async def _once(content: memoryview) -> AsyncIterator[memoryview]:
    """A body that aiohttp cannot send again by itself: what of it arrived has to be asked first."""
    for start in range(0, len(content), _SENT_BYTES):
        yield content[start : start + _SENT_BYTES]


def _credentials(access: str, *, anon: bool, file: CredentialsFile | None) -> Any:
    from gcsfs.credentials import GoogleCredentials  # noqa: PLC0415  an extra

    # Named, so that gcsfs does not go on to other ways, one of which opens a browser.
    token = "anon" if anon else "google_default"
    return GoogleCredentials(
        project="", access=access, token=token if file is None else file.google_account(access)
    )


def _facts(body: bytes) -> ObjectFacts:
    try:
        found = json.loads(body)
        generation, size = str(int(found["generation"])), int(found["size"])
    except (ValueError, KeyError, TypeError):
        raise StoreError(Kind.REFUSED, "expected generation and size, got something else") from None
    return ObjectFacts(token=generation, size=size, version=generation)


@contextlib.contextmanager
def _classified() -> Iterator[None]:
    """Turn what aiohttp, google-auth and gcsfs raise into a StoreError."""
    from aiohttp import ClientError  # noqa: PLC0415  an extra
    from gcsfs.retry import HttpError, NonRetryableError  # noqa: PLC0415
    from google.auth.exceptions import GoogleAuthError, TransportError  # noqa: PLC0415

    try:
        yield
    except (ClientError, TransportError, OSError) as error:
        raise from_network(error) from None
    except (GoogleAuthError, HttpError, NonRetryableError) as error:
        raise StoreError(Kind.FORBIDDEN, f"no credentials were found ({type(error).__name__})") from None
    except ValueError as error:
        raise StoreError(Kind.REFUSED, f"the client refused the request ({type(error).__name__})") from None
