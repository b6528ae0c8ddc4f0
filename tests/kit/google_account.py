"""Google as a service account meets it: where tokens come from, and a store that asks for them.

Each account may read the bucket of its own name, and no other.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt
from google.auth.exceptions import GoogleAuthError

from tests.kit.object_stores import BUCKET

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("Google", "google")

_DOWNLOAD = re.compile(r"bytes=(\d+)-(\d+)")
_OBJECT = re.compile(r"/storage/v1/b/([^/]+)/o/")
_MAIL = "{}@tests.iam.gserviceaccount.com"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


@dataclass(slots=True, eq=False)
class Google:
    """One object a bucket, whose generation grows when it is `put`."""

    endpoint: str
    lives: float = 3600.0
    """Seconds that a token is said to hold."""
    refusal: tuple[int, dict[str, str]] | None = None
    """What is answered to whoever asks for a token."""
    given: list[str] = field(default_factory=list)
    """Tokens, in the order they were given out."""
    contents: dict[str, bytes] = field(default_factory=dict)
    """Of each bucket's object."""
    _generations: Counter[str] = field(default_factory=Counter)
    _keys: dict[str, bytes] = field(default_factory=dict)
    """Public, by the account's address."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _holders: dict[str, str] = field(default_factory=dict)
    """Accounts by the token that they may use."""

    def put(self, content: bytes, bucket: str = BUCKET) -> None:
        """Replace the object."""
        self.contents[bucket] = content
        self._generations[bucket] += 1

    def revoke(self) -> None:
        """No token that was given out is accepted any more."""
        self._holders.clear()

    def key(self, account: str = BUCKET) -> str:
        """A new key file of the account, whose tokens come from here."""
        private = rsa.generate_private_key(65537, 2048)
        self._keys[_MAIL.format(account)] = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return json.dumps(
            {
                "type": "service_account",
                "project_id": "tests",
                "private_key_id": "1",
                "private_key": pem.decode(),
                "client_email": _MAIL.format(account),
                "client_id": "1",
                "token_uri": f"{self.endpoint}/token",
            }
        )

    def token(self, asked: str) -> tuple[int, dict[str, object]]:
        """What the token endpoint answers to a form."""
        if self.refusal is not None:
            return self.refusal[0], dict(self.refusal[1])
        form = parse_qs(asked)
        account = self._signer(form["assertion"][0]) if form["grant_type"] == [_GRANT] else None
        if account is None:
            return 400, {"error": "invalid_grant"}
        token = f"token-{next(self._numbers)}"
        self.given.append(token)
        self._holders[token] = account
        return 200, {"access_token": token, "expires_in": self.lives, "token_type": "Bearer"}

    def facts(self, bucket: str) -> dict[str, str]:
        """What the JSON API says of the object."""
        return {"generation": str(self._generations[bucket]), "size": str(len(self.contents[bucket]))}

    def refused(self, bucket: str, authorization: str | None) -> int | None:
        """The status for whoever has no token, or one of an account that may not read the bucket."""
        account = self._holders.get((authorization or "").removeprefix("Bearer "))
        if account is None:
            return 401
        return None if account == _MAIL.format(bucket) else 403

    def _signer(self, assertion: str) -> str | None:
        """The account whose key it is signed with."""
        try:
            address = str(jwt.decode(assertion, verify=False)["iss"])  # type: ignore[no-untyped-call]
            jwt.decode(assertion, self._keys[address])  # type: ignore[no-untyped-call]
        except (GoogleAuthError, ValueError, KeyError):
            return None
        return address


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    world: Google


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        status, answer = cast("_Server", self.server).world.token(asked)
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def do_GET(self) -> None:
        world, named = cast("_Server", self.server).world, _OBJECT.search(self.path)
        bucket = named[1] if named else ""
        status = world.refused(bucket, self.headers["Authorization"])
        if status is not None:
            self._send(status, b"", {})
            return
        content, facts = world.contents[bucket], world.facts(bucket)
        span = _DOWNLOAD.fullmatch(self.headers.get("Range", ""))
        if span is None:
            self._send(200, json.dumps(facts).encode(), {})
            return
        start, last = int(span[1]), int(span[2])
        headers = {
            "Content-Range": f"bytes {start}-{last}/{facts['size']}",
            "x-goog-generation": facts["generation"],
        }
        self._send(206, content[start : last + 1], headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def google(host: str = "127.0.0.1") -> Iterator[Google]:
    """Such a Google on a free port."""
    with _Server((host, 0), _Handler) as server:
        server.world = Google(f"http://{host}:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.world
        finally:
            server.shutdown()
            thread.join()
