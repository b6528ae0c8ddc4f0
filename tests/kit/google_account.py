"""Google as a service account meets it: where tokens come from, and a store that asks for them."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, cast

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ("Google", "google")

_DOWNLOAD = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass(slots=True, eq=False)
class Google:
    """One object, whose generation grows when it is `put`, for whoever has the last token given out."""

    content: bytes
    endpoint: str = ""
    generation: int = 1
    lives: float = 3600.0
    """Seconds that a token is said to hold."""
    refusal: tuple[int, dict[str, str]] | None = None
    """What is answered to whoever asks for a token."""
    given: list[str] = field(default_factory=list)
    """Tokens, in the order they were given out."""
    assertions: list[str] = field(default_factory=list)
    """What they were asked for with."""

    def put(self, content: bytes) -> None:
        """Replace the object."""
        self.content, self.generation = content, self.generation + 1

    def revoke(self) -> None:
        """No token that was given out is accepted any more."""
        self.given.append("nobody has this one")

    def key_file(self, folder: Path) -> Path:
        """Of a service account, whose tokens come from here."""
        key = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        account = {
            "type": "service_account",
            "project_id": "tests",
            "private_key_id": "1",
            "private_key": key.decode(),
            "client_email": "reader@tests.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": f"{self.endpoint}/token",
        }
        path = folder / "account.json"
        path.write_text(json.dumps(account), "utf-8")
        return path

    def token(self, assertion: str) -> tuple[int, dict[str, object]]:
        """What the token endpoint answers."""
        self.assertions.append(assertion)
        if self.refusal is not None:
            return self.refusal[0], dict(self.refusal[1])
        self.given.append(f"token-{len(self.given)}")
        return 200, {"access_token": self.given[-1], "expires_in": self.lives, "token_type": "Bearer"}


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
        world = cast("_Server", self.server).world
        if not world.given or self.headers["Authorization"] != f"Bearer {world.given[-1]}":
            self._send(401, b"", {})
            return
        span = _DOWNLOAD.fullmatch(self.headers.get("Range", ""))
        if span is None:
            facts = {"generation": str(world.generation), "size": str(len(world.content))}
            self._send(200, json.dumps(facts).encode(), {})
            return
        start, last = int(span[1]), int(span[2])
        headers = {
            "Content-Range": f"bytes {start}-{last}/{len(world.content)}",
            "x-goog-generation": str(world.generation),
        }
        self._send(206, world.content[start : last + 1], headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def google(content: bytes) -> Iterator[Google]:
    """Such a Google on a free port."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.world = Google(content, endpoint=f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.world
        finally:
            server.shutdown()
            thread.join()
