"""The two clients: the same calls and the same attempts, once waiting and once awaiting.

Both keep connections open and are safe to share, `Client` between threads, `AsyncClient` between tasks.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

import httpx

import kosine
from kosine.client import calls
from kosine.client.attempts import Attempts
from kosine.client.errors import Unreachable, refusal
from kosine.errors import KosineError
from kosine.retries import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from numpy.typing import ArrayLike

    from kosine.client.answers import IndexInfo, IndexNames, Item, Matches, Scores
    from kosine.client.calls import (
        Call,
        CommonOptions,
        ItemOptions,
        ItemPageOptions,
        PageOptions,
        SearchOptions,
    )

__all__ = ("AsyncClient", "Client")

T = TypeVar("T")
Options = TypeVar(
    "Options", "CommonOptions", "SearchOptions", "ItemOptions", "PageOptions", "ItemPageOptions"
)
PagedOptions = TypeVar("PagedOptions", "PageOptions", "ItemPageOptions")

_TIMEOUT = 5.0
_RETRIES = RetryPolicy(attempts=5, first=0.1, cap=2.0)
_AGENT = {"User-Agent": f"kosine-client/{kosine.__version__}"}


class _Base:
    def __init__(self, *, index: str | None, timeout: float, retries: RetryPolicy) -> None:
        self._index = index
        self._timeout = timeout
        self._retries = retries

    def _complete(self, options: Options) -> Options:
        """With the client's own index, where none is named."""
        if self._index is not None:
            options.setdefault("index", self._index)
        return options

    def _attempts(self, timeout: float | None) -> Attempts:
        return Attempts(
            self._retries,
            timeout=self._timeout if timeout is None else timeout,
            clock=time.monotonic,
            draw=random.random,
        )


class Client(_Base):
    """Asks the service at `url`, about `index` unless a call names another; None is its default index.

    `timeout` is in seconds and covers a whole call, attempts and the pauses between them included. A call is
    tried again when the service cannot be reached or answers 429 or 503, never sooner than it asks for.
    `SearchOptions` are what each search takes. `headers` go with every request; `transport` replaces the
    network (`httpx.HTTPTransport(verify=...)`).

    Calls raise the classes of `kosine.errors` by the code of the refusal, DeadlineExceeded when the time is
    up, Unreachable where nothing answers, and UnexpectedAnswer where something else than kosine does.
    """

    def __init__(
        self,
        url: str,
        *,
        index: str | None = None,
        timeout: float = _TIMEOUT,
        retries: RetryPolicy = _RETRIES,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(index=index, timeout=timeout, retries=retries)
        self._http = httpx.Client(
            base_url=_checked(url), headers=_AGENT | dict(headers or {}), transport=transport
        )

    def search(self, embedding: ArrayLike, **options: Unpack[SearchOptions]) -> Matches:
        """The items most similar to `embedding` [d], best first."""
        return self._ask(calls.search(embedding, self._complete(options)), options.get("timeout"))

    def search_many(self, embeddings: ArrayLike, **options: Unpack[SearchOptions]) -> list[Matches]:
        """The same for each row of `embeddings` [n, d], all from one version."""
        return self._ask(calls.search_many(embeddings, self._complete(options)), options.get("timeout"))

    def search_id(self, item: int | str, **options: Unpack[ItemOptions]) -> Matches:
        """The items most similar to that of id `item`, which is itself left out."""
        return self._ask(calls.search_id(item, self._complete(options)), options.get("timeout"))

    def search_ids(self, items: ArrayLike, **options: Unpack[ItemOptions]) -> list[Matches]:
        """The same for each of `items` [n], all from one version."""
        return self._ask(calls.search_ids(items, self._complete(options)), options.get("timeout"))

    def pages(self, embedding: ArrayLike, **options: Unpack[PageOptions]) -> Iterator[Matches]:
        """Everything that can be found, best first, `k` items at a time, each page when it is wanted.

        No item comes twice and none is left out. VersionGone where another version answers meanwhile.
        """
        return self._pages(lambda asked: calls.search(embedding, asked), self._complete(options))

    def pages_id(self, item: int | str, **options: Unpack[ItemPageOptions]) -> Iterator[Matches]:
        """The same for the item of id `item`, which is itself left out."""
        return self._pages(lambda asked: calls.search_id(item, asked), self._complete(options))

    def item(self, item: int | str, **options: Unpack[CommonOptions]) -> Item:
        """The stored vector of the item of id `item`."""
        return self._ask(calls.show_item(item, self._complete(options)), options.get("timeout"))

    def score(self, embedding: ArrayLike, items: ArrayLike, **options: Unpack[CommonOptions]) -> Scores:
        """What `items` [n] score against `embedding` [d], in their order: to rank again what was found."""
        return self._ask(calls.score(embedding, items, self._complete(options)), options.get("timeout"))

    def score_id(self, item: int | str, items: ArrayLike, **options: Unpack[CommonOptions]) -> Scores:
        """The same against the item of id `item`."""
        return self._ask(calls.score_id(item, items, self._complete(options)), options.get("timeout"))

    def indexes(self, *, timeout: float | None = None) -> IndexNames:
        """Every index and its state."""
        return self._ask(calls.list_indexes(), timeout)

    def index(self, name: str, *, timeout: float | None = None) -> IndexInfo:
        """One index and its state."""
        return self._ask(calls.show_index(name), timeout)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, call: Call[T], timeout: float | None) -> T:
        attempts = self._attempts(timeout)
        while True:
            try:
                return self._attempt(call, attempts)
            except KosineError as error:
                time.sleep(attempts.pause(error))

    def _pages(
        self, call: Callable[[PagedOptions], Call[Matches]], options: PagedOptions
    ) -> Iterator[Matches]:
        options.setdefault("after", None)
        while True:
            page = self._ask(call(options), options.get("timeout"))
            yield page
            if page.next is None:
                return
            options["after"] = page.next

    def _attempt(self, call: Call[T], attempts: Attempts) -> T:
        headers = {**call.headers, **attempts.headers()}
        try:
            with self._http.stream(
                call.method, call.path, content=call.content, headers=headers, timeout=attempts.left()
            ) as response:
                chunks = []
                for chunk in response.iter_bytes():
                    chunks.append(chunk)
                    attempts.left()
        except httpx.TimeoutException:
            raise attempts.late() from None
        except httpx.RequestError as error:
            raise _unreachable(self._http.base_url, error) from error
        return _read(call, response, b"".join(chunks))


class AsyncClient(_Base):
    """`Client` for asyncio; see there."""

    def __init__(
        self,
        url: str,
        *,
        index: str | None = None,
        timeout: float = _TIMEOUT,
        retries: RetryPolicy = _RETRIES,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(index=index, timeout=timeout, retries=retries)
        self._http = httpx.AsyncClient(
            base_url=_checked(url), headers=_AGENT | dict(headers or {}), transport=transport
        )

    async def search(self, embedding: ArrayLike, **options: Unpack[SearchOptions]) -> Matches:
        """The items most similar to `embedding` [d], best first."""
        return await self._ask(calls.search(embedding, self._complete(options)), options.get("timeout"))

    async def search_many(self, embeddings: ArrayLike, **options: Unpack[SearchOptions]) -> list[Matches]:
        """The same for each row of `embeddings` [n, d], all from one version."""
        return await self._ask(calls.search_many(embeddings, self._complete(options)), options.get("timeout"))

    async def search_id(self, item: int | str, **options: Unpack[ItemOptions]) -> Matches:
        """The items most similar to that of id `item`, which is itself left out."""
        return await self._ask(calls.search_id(item, self._complete(options)), options.get("timeout"))

    async def search_ids(self, items: ArrayLike, **options: Unpack[ItemOptions]) -> list[Matches]:
        """The same for each of `items` [n], all from one version."""
        return await self._ask(calls.search_ids(items, self._complete(options)), options.get("timeout"))

    def pages(self, embedding: ArrayLike, **options: Unpack[PageOptions]) -> AsyncIterator[Matches]:
        """Everything that can be found, best first, `k` items at a time; for `async for`."""
        return self._pages(lambda asked: calls.search(embedding, asked), self._complete(options))

    def pages_id(self, item: int | str, **options: Unpack[ItemPageOptions]) -> AsyncIterator[Matches]:
        """The same for the item of id `item`, which is itself left out."""
        return self._pages(lambda asked: calls.search_id(item, asked), self._complete(options))

    async def item(self, item: int | str, **options: Unpack[CommonOptions]) -> Item:
        """The stored vector of the item of id `item`."""
        return await self._ask(calls.show_item(item, self._complete(options)), options.get("timeout"))

    async def score(self, embedding: ArrayLike, items: ArrayLike, **options: Unpack[CommonOptions]) -> Scores:
        """What `items` [n] score against `embedding` [d], in their order: to rank again what was found."""
        return await self._ask(calls.score(embedding, items, self._complete(options)), options.get("timeout"))

    async def score_id(self, item: int | str, items: ArrayLike, **options: Unpack[CommonOptions]) -> Scores:
        """The same against the item of id `item`."""
        return await self._ask(calls.score_id(item, items, self._complete(options)), options.get("timeout"))

    async def indexes(self, *, timeout: float | None = None) -> IndexNames:  # noqa: ASYNC109  of all attempts
        """Every index and its state."""
        return await self._ask(calls.list_indexes(), timeout)

    async def index(self, name: str, *, timeout: float | None = None) -> IndexInfo:  # noqa: ASYNC109  the same
        """One index and its state."""
        return await self._ask(calls.show_index(name), timeout)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask(self, call: Call[T], timeout: float | None) -> T:  # noqa: ASYNC109  the same
        attempts = self._attempts(timeout)
        while True:
            try:
                return await self._attempt(call, attempts)
            except KosineError as error:
                await asyncio.sleep(attempts.pause(error))

    async def _pages(
        self, call: Callable[[PagedOptions], Call[Matches]], options: PagedOptions
    ) -> AsyncIterator[Matches]:
        options.setdefault("after", None)
        while True:
            page = await self._ask(call(options), options.get("timeout"))
            yield page
            if page.next is None:
                return
            options["after"] = page.next

    async def _attempt(self, call: Call[T], attempts: Attempts) -> T:
        headers = {**call.headers, **attempts.headers()}
        try:
            # httpx bounds each read of an answer, this the whole of it.
            async with asyncio.timeout(attempts.left()):
                response = await self._http.request(
                    call.method, call.path, content=call.content, headers=headers, timeout=attempts.left()
                )
        except (TimeoutError, httpx.TimeoutException):
            raise attempts.late() from None
        except httpx.RequestError as error:
            raise _unreachable(self._http.base_url, error) from error
        return _read(call, response, response.content)


def _read(call: Call[T], response: httpx.Response, body: bytes) -> T:
    if response.status_code == httpx.codes.OK:
        return call.read(body)
    raise refusal(response.status_code, response.headers, body)


def _checked(url: str) -> httpx.URL:
    parsed = httpx.URL(url)
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError(f"expected http://HOST:PORT or https://HOST, got {url!r}")
    return parsed


def _unreachable(url: httpx.URL, error: httpx.RequestError) -> Unreachable:
    """Names the service without what a URL may carry besides: a password."""
    place = f"{url.scheme}://{url.netloc.decode('ascii')}"
    return Unreachable(
        f"no answer from {place}: {str(error) or type(error).__name__}; is the service running?"
    )
