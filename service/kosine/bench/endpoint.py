"""What the bench asks a service besides queries: its indexes, its counters, whether it is ready.

Another server of the same query protocol can be measured too; what it does not answer is left out.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import msgspec

from kosine.bench.counters import read_exposition
from kosine.errors import StartupError

if TYPE_CHECKING:
    from kosine.bench.bodies import Question
    from kosine.bench.counters import Scrape

__all__ = ("Endpoint", "Follower", "IndexStatus")

_SECONDS = 10.0
_HTTP_PORT = 80


class IndexStatus(msgspec.Struct, frozen=True):
    """The part of `GET /indexes/{name}` that matters here."""

    state: str = "available"
    version: str | None = None
    rows: int | None = None
    dim: int | None = None
    metric: str | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a service listens. Every call is a connection of its own."""

    host: str
    port: int
    prefix: str = ""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises StartupError where `url` is not plain http."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = parts = None
        if parts is None or host is None or parts.scheme != "http" or parts.query or parts.fragment:
            raise StartupError(f"--url: expected http://HOST:PORT, got {url!r}; there is no TLS here")
        return cls(host, port or _HTTP_PORT, parts.path.rstrip("/"))

    @property
    def url(self) -> str:
        """As it was given."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{self.prefix}"

    def request(self, index: str, asked: Question) -> bytes:
        """A complete request for the items most similar to what is `asked` for."""
        authority = self.url.removeprefix("http://").removesuffix(self.prefix)
        head = (
            f"POST {self.path(index)}{asked.parameters} HTTP/1.1\r\nHost: {authority}\r\n"
            f"Content-Type: {asked.content_type}\r\nContent-Length: {len(asked.body)}\r\n\r\n"
        )
        return head.encode("ascii") + asked.body

    def path(self, index: str) -> str:
        """Where queries go."""
        return f"{self.prefix}/indexes/{index}/cos"

    def index(self, name: str) -> IndexStatus | None:
        """The status of an index; None where the server has no such route or no such index."""
        code, body = self._get(f"/indexes/{name}")
        return None if code >= HTTPStatus.BAD_REQUEST else _status(code, body)

    def follow(self, name: str) -> Follower:
        """For asking after the version of an index again and again."""
        return Follower(self, name)

    def ready(self) -> bool:
        """Whether /readyz says so. Raises StartupError where nothing listens."""
        return self._get("/readyz")[0] == HTTPStatus.OK

    def scrape(self) -> Scrape | None:
        """The counters now; None where the server has none."""
        status, body = self._get("/metrics")
        return read_exposition(body.decode("utf-8", "replace")) if status == HTTPStatus.OK else None

    def _get(self, path: str) -> tuple[int, bytes]:
        with closing(self.connect()) as connection:
            return self.get(connection, path)

    def connect(self) -> HTTPConnection:
        """A connection for `get`, made when it is first used."""
        return HTTPConnection(self.host, self.port, timeout=_SECONDS)

    def get(self, connection: HTTPConnection, path: str) -> tuple[int, bytes]:
        """Status and body. Raises StartupError where there is no answer."""
        try:
            connection.request("GET", self.prefix + path)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, HTTPException) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or "no answer"
            raise StartupError(f"cannot reach {self.url}{path}: {reason}") from error


class Follower:
    """A context manager; asks over one connection, which costs the service less than one each time."""

    def __init__(self, endpoint: Endpoint, name: str) -> None:
        self._endpoint = endpoint
        self._name = name

    def __enter__(self) -> Self:
        self._connection = self._endpoint.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def version(self) -> str | None:
        """The version that is served now."""
        return _status(*self._endpoint.get(self._connection, f"/indexes/{self._name}")).version


def _status(code: int, body: bytes) -> IndexStatus:
    """Raises StartupError where it is none."""
    if code != HTTPStatus.OK:
        raise StartupError(f"expected the status of an index, got HTTP {code}")
    try:
        return msgspec.json.decode(body, type=IndexStatus)
    except msgspec.DecodeError as error:
        raise StartupError(f"expected the status of an index, got something else: {error}") from error
