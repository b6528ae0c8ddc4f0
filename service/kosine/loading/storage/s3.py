"""S3 and what speaks its protocol, by the client of an s3fs session.

s3fs finds the credentials (environment, profile, web identity, instance) and makes the client; requests
are our own, because its helpers for whole files fetch unpinned pieces and tear files that are replaced
meanwhile. Every range names the ETag, and the version id where the bucket keeps versions. `FSSPEC_*`
variables and files, and endpoints that the environment names, do not count: where requests go is a setting.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading.storage.clients import Clients
from kosine.loading.storage.errors import Kind, StoreError, from_network, from_status
from kosine.loading.storage.objects import ObjectFacts, check_range, checked_size
from kosine.loading.storage.s3_transport import SignedGets, ThreadedSession
from kosine.retries import retry_after

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from kosine.loading.storage.credentials import CredentialsFile
    from kosine.loading.storage.objects import ObjectName
    from kosine.settings import S3Settings

__all__ = ("S3Store", "require_s3fs")

_BAD_REQUEST = 400
_FAILURES = 300
_CONNECT_TIMEOUT = 5.0
_CONNECTIONS = 64


def require_s3fs() -> None:
    """LoadError `missing_extra` that names the command, where s3fs is not installed."""
    try:
        import s3fs  # noqa: F401, PLC0415  an extra
    except ImportError:
        raise LoadError(
            LoadCode.MISSING_EXTRA,
            "s3:// sources need s3fs, which is not installed; run: pip install 'kosine[s3]'",
            stage=Stage.FINGERPRINT,
        ) from None


@dataclass(frozen=True, slots=True, eq=False)
class _Connected:
    client: Any
    signed: SignedGets


class S3Store:
    """Implements `ObjectStore`. Create it on its loop."""

    def __init__(
        self, settings: S3Settings, *, idle_timeout: float, credentials: CredentialsFile | None = None
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._idle_timeout = idle_timeout
        self._clients = Clients(self._connect)

    async def head(self, name: ObjectName) -> ObjectFacts:
        """See `ObjectStore.head`; asked again where the credentials have expired."""
        worked = self._clients.worked
        try:
            return await self._head(name)
        except StoreError as error:
            if not worked or error.status != _BAD_REQUEST:
                raise
        return await self._head(name)

    async def _head(self, name: ObjectName) -> ObjectFacts:
        async with self._clients.use() as connected:
            try:
                with _classified():
                    return _facts(await connected.client.head_object(Bucket=name.bucket, Key=name.key))
            except StoreError as error:
                if error.status != _BAD_REQUEST:
                    raise
                # An expired token; the answer to a HEAD has no body to say so.
                raise StoreError(Kind.FORBIDDEN, error.detail, status=error.status) from None

    @contextlib.asynccontextmanager
    async def get_range(
        self, name: ObjectName, facts: ObjectFacts, *, start: int, stop: int
    ) -> AsyncIterator[Callable[[memoryview], Awaitable[int]]]:
        """See `ObjectStore.get_range`."""
        pin = {"IfMatch": facts.etag or ""} | ({"VersionId": facts.version} if facts.version else {})
        async with self._clients.use() as connected:
            with _classified():
                signed = await connected.signed.of(Bucket=name.bucket, Key=name.key, **pin)
                answer = await signed.range(start, stop)
                with contextlib.closing(answer.body) as body:
                    headers = answer.headers
                    if answer.status >= _FAILURES:
                        raise _from_answer(answer.status, answer.error, headers.get("Retry-After"))
                    check_range(answer.status, headers, start=start, stop=stop, size=facts.size)
                    if headers.get("ETag") != facts.etag:  # a store that ignores If-Match
                        raise StoreError(Kind.CHANGED, "it was replaced")
                    yield body.read_into

    async def request(self, operation: str, **options: Any) -> dict[str, Any]:
        """What the client's `operation` answers."""
        async with self._clients.use() as connected:
            with _classified():
                answer: dict[str, Any] = await getattr(connected.client, operation)(**options)
            return answer

    async def close(self) -> None:
        """See `ObjectStore.close`."""
        await self._clients.close()

    async def _connect(self) -> tuple[_Connected, Callable[[], Awaitable[None]]]:
        # Loading the service's description takes 0.1 s of a processor: not on the loop of the transfers.
        system = await asyncio.to_thread(_file_system, self._settings, self._idle_timeout, self._credentials)
        with _classified():
            client = await system.set_session()
        client.meta.events.register_last("before-parameter-build.s3", _stay_in_region)

        async def close() -> None:
            await client.close()

        return _Connected(client, SignedGets(client)), close


def _stay_in_region(context: dict[str, Any], **_: Any) -> None:
    """Keep botocore from looking for the bucket's region, which it does for ever if all it gets is 301."""
    context.get("s3_redirect", {})["redirected"] = True


def _file_system(
    settings: S3Settings, idle_timeout: float, credentials: CredentialsFile | None = None
) -> Any:
    from s3fs import S3FileSystem  # noqa: PLC0415  an extra

    class OwnS3FileSystem(S3FileSystem):  # type: ignore[misc]  # s3fs has no types
        # fsspec applies its configuration by this name.
        protocol = ("kosine-s3",)

    named = {"anon": settings.anon} if credentials is None else credentials.s3_keys()
    return OwnS3FileSystem(
        **named,
        endpoint_url=settings.endpoint_url,
        client_kwargs={"region_name": settings.region} if settings.region is not None else {},
        config_kwargs={
            "connect_timeout": _CONNECT_TIMEOUT,
            "read_timeout": idle_timeout,
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "max_pool_connections": _CONNECTIONS,
            "http_session_cls": ThreadedSession,
            "ignore_configured_endpoint_urls": True,
            "response_checksum_validation": "when_required",
        },
        use_listings_cache=False,
        skip_instance_cache=True,
        asynchronous=True,
    )


def _facts(found: dict[str, Any]) -> ObjectFacts:
    etag, version = found.get("ETag"), found.get("VersionId")
    if not etag:
        raise StoreError(Kind.REFUSED, "the store sent no ETag, by which a change is seen")
    version = None if version == "null" else version
    plain = etag.strip('"')
    token = plain if version is None else f"{plain}@{version}"
    written = found.get("LastModified")
    return ObjectFacts(
        token=token,
        size=checked_size(int(found["ContentLength"])),
        etag=etag,
        version=version,
        modified=written.timestamp() if isinstance(written, datetime) else None,
    )


@contextlib.contextmanager
def _classified() -> Iterator[None]:
    """Turn what botocore and urllib3 raise into a StoreError."""
    from botocore import exceptions as boto  # noqa: PLC0415  an extra
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    try:
        yield
    except boto.ClientError as error:
        raise _from_client(error.response) from None
    except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError) as error:
        raise StoreError(Kind.FORBIDDEN, f"no credentials were found ({type(error).__name__})") from None
    except (boto.HTTPClientError, HTTPError, HTTPException, OSError) as error:
        raise from_network(error) from None
    except (boto.BotoCoreError, ValueError) as error:
        raise StoreError(Kind.REFUSED, f"the client refused the request ({type(error).__name__})") from None


def _from_client(response: Mapping[str, Any]) -> StoreError:
    about = response.get("ResponseMetadata", {})
    code = str(response.get("Error", {}).get("Code", ""))
    return _from_answer(
        int(about.get("HTTPStatusCode", 0)) or 500, code, about.get("HTTPHeaders", {}).get("retry-after")
    )


def _from_answer(status: int, code: str, wait: str | None) -> StoreError:
    after = retry_after(wait, now=datetime.now(UTC))
    return from_status(status, reason=code if code.isalnum() else "", after=after)
