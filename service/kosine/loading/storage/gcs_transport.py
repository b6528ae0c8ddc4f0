"""How requests to Google travel: by requests, as its own credentials do, in threads.

Proxies and certificate authorities are those of the environment. Nothing else of it counts: no redirect is
followed, no cookie kept, and no `.netrc` looked at.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

from kosine.loading.storage.bodies import Body
from kosine.loading.storage.connections import Connections, Waiting
from kosine.loading.storage.errors import from_status
from kosine.loading.storage.transfer_threads import TransferThreads
from kosine.retries import retry_after

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import requests

__all__ = ("Answer", "GcsTransport")

_CONNECT_TIMEOUT = 5.0
_TOKEN_TIMEOUT = 10.0
_CONNECTIONS = 64
_CONTENT_BYTES = 4 * 2**20
"""Of an answer that is read at once: a page of a listing has up to 1000 objects."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """To one request that was not refused; where it was not asked to be streamed, `content` is all of it."""

    status: int
    headers: Mapping[str, str]
    body: Body
    content: bytes


class GcsTransport:
    """Connections to one endpoint, and whose requests go through them. Used on one loop."""

    def __init__(self, credentials: Any | None, *, idle_timeout: float) -> None:
        self._credentials = credentials
        self._refreshing = threading.Lock()
        self._timeout = (_CONNECT_TIMEOUT, idle_timeout)
        self._connections = Connections()
        self._threads = TransferThreads()
        self._session = _session(self._connections)

    async def close(self) -> None:
        """Let go of all threads and connections, those in use, too."""
        await self._connections.close(self._threads)
        self._session.close()

    @contextlib.asynccontextmanager
    async def requested(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        *,
        content: memoryview | None,
        answers: frozenset[int],
        stream: bool,
    ) -> AsyncIterator[Answer]:
        """The answer to one request; StoreError where its status is none of `answers`."""

        def exchange() -> Answer:
            # Content comes as it is stored; "identity" would have a compressed object unpacked on the way.
            signed = {"Accept-Encoding": "gzip" if stream else "identity", **headers}
            self._authorize(method, url, signed)
            answer = self._session.request(
                method,
                url,
                headers=signed,
                data=content,
                timeout=self._timeout,
                allow_redirects=False,
                stream=True,
            )
            try:
                return self._taken(answer, stream=stream, answers=answers)
            except BaseException:
                answer.close()
                raise

        def call() -> Answer:
            with self._connections.waited_on_by(waiting):
                return exchange()

        waiting = Waiting()
        answer = await self._threads.run(
            call, called_off=waiting.call_off, late=lambda late: late.body.close()
        )
        with contextlib.closing(answer.body):
            yield answer

    def _authorize(self, method: str, url: str, headers: dict[str, str]) -> None:
        """Add a token to `headers`, fetched where there is none that still holds, over our connections."""
        from google.auth.transport.requests import Request  # noqa: PLC0415  an extra

        if self._credentials is None:
            return
        fetch = partial(Request(self._session), timeout=_TOKEN_TIMEOUT)
        with self._refreshing:
            self._credentials.before_request(fetch, method, url, headers)

    def _taken(self, answer: requests.Response, *, stream: bool, answers: frozenset[int]) -> Answer:
        if answer.status_code not in answers:
            after = retry_after(answer.headers.get("Retry-After"), now=datetime.now(UTC))
            raise from_status(answer.status_code, after=after)
        body = Body(answer.raw, self._threads)
        content = b""
        if not stream:
            content = answer.raw.read(_CONTENT_BYTES)
            answer.raw.read(1)  # its end, which a chunked one tells only now
        return Answer(answer.status_code, answer.headers, body, content)


def _session(connections: Connections) -> requests.Session:
    import requests  # noqa: PLC0415  an extra
    from requests.adapters import HTTPAdapter  # noqa: PLC0415
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool  # noqa: PLC0415

    pools = connections.pool_classes(HTTPConnectionPool, HTTPSConnectionPool)

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, **options)
            self.poolmanager.pool_classes_by_scheme = pools

        def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
            manager = super().proxy_manager_for(proxy, **options)
            manager.pool_classes_by_scheme = pools
            return manager

    session = requests.Session()
    session.auth = _as_it_is
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    for scheme in ("http://", "https://"):
        session.mount(scheme, Adapter(pool_maxsize=_CONNECTIONS))
    return session


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Without it, requests takes credentials of a `.netrc` in place of Google's."""
    return request
