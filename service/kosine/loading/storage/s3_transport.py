"""How requests of the S3 client travel: botocore's own transport in threads, and content past the client.

A call of the client takes the interpreter 2 to 3 ms, during which nothing else of a load gets on. So the
client signs one request for a whole object, and what is sent are ranges of it: S3 signs the host and its own
headers, and a signature holds 15 minutes.
"""

from __future__ import annotations

import copy
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from kosine.loading.storage.bodies import Body
from kosine.loading.storage.connections import Connections, Waiting
from kosine.loading.storage.transfer_threads import TransferThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

__all__ = ("Answer", "SignedGet", "SignedGets", "ThreadedSession")

T = TypeVar("T")

_USED_FOR = 240.0
_ERROR_BYTES = 64 * 2**10
_ERROR_CODE = re.compile(rb"<Code>(\w+)</Code>")
_FAILURES = 300


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """To a request for a range; `error` is the store's own code for a failure."""

    status: int
    headers: Mapping[str, str]
    body: Body
    error: str = ""


class ThreadedSession:
    """What aiobotocore sends requests by; follows no redirect."""

    def __init__(self, *, connector_args: object, **options: Any) -> None:
        from botocore.awsrequest import AWSHTTPConnectionPool, AWSHTTPSConnectionPool  # noqa: PLC0415
        from botocore.httpsession import URLLib3Session  # noqa: PLC0415  an extra

        del connector_args  # of aiohttp
        self._connections = Connections()
        self._threads = TransferThreads()
        self._session = URLLib3Session(**options)
        # The one place from which all its pools are made; it has no public one.
        self._session._pool_classes_by_scheme.update(  # noqa: SLF001
            self._connections.pool_classes(AWSHTTPConnectionPool, AWSHTTPSConnectionPool)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of all threads and connections, those in use, too."""
        await self._connections.close(self._threads)
        self._session.close()

    async def send(self, request: Any) -> Any:
        """The answer to `request`; one for content is not sent: the body of its answer is a SignedGet."""
        from aiobotocore.awsrequest import AioAWSResponse  # noqa: PLC0415  an extra

        if request.stream_output:
            return AioAWSResponse(request.url, 200, {}, SignedGet(request, self))

        def exchange() -> Any:
            answer = self._session.send(request)
            body = Body(answer.raw, self._threads, answer.content)
            return AioAWSResponse(answer.url, answer.status_code, answer.headers, body)

        return await self._exchanged(exchange)

    async def get(self, request: Any) -> Answer:
        """The answer to a request for content; the body of a failure has been read."""

        def exchange() -> Answer:
            answer = self._session.send(request)
            body, error = Body(answer.raw, self._threads), None
            if answer.status_code >= _FAILURES:
                try:
                    error = _ERROR_CODE.search(answer.raw.read(_ERROR_BYTES))
                finally:
                    answer.raw.close()
            return Answer(answer.status_code, answer.headers, body, error[1].decode() if error else "")

        return await self._exchanged(exchange, late=lambda answer: answer.body.close())

    async def _exchanged(self, exchange: Callable[[], T], *, late: Callable[[T], None] = lambda _: None) -> T:
        waiting = Waiting()

        def call() -> T:
            with self._connections.waited_on_by(waiting):
                return exchange()

        return await self._threads.run(call, called_off=waiting.call_off, late=late)


@dataclass(frozen=True, slots=True, eq=False)
class SignedGet:
    """A request for a whole object."""

    request: Any
    session: ThreadedSession

    async def range(self, start: int, stop: int) -> Answer:
        """The answer to the request for bytes [start, stop) of it."""
        ranged = copy.copy(self.request)
        ranged.headers = self.request.headers.copy()
        ranged.headers["Range"] = f"bytes={start}-{stop - 1}"
        return await self.session.get(ranged)


class SignedGets:
    """Signed requests of one client, each used for a while."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._signed: dict[tuple[tuple[str, str], ...], tuple[float, SignedGet]] = {}

    async def of(self, **request: str) -> SignedGet:
        """The request that `get_object` makes of these parameters."""
        now, key = time.monotonic(), tuple(request.items())
        self._signed = {one: held for one, held in self._signed.items() if held[0] > now}
        if key not in self._signed:
            found = await self._client.get_object(**request)
            self._signed[key] = (now + _USED_FOR, found["Body"].raw_stream)
        return self._signed[key][1]
