"""A pod that does what a test asks it over HTTP; standard library only, run as a script.

GET /                  the pod's name
GET /readyz            200, or 503 after POST /unready
GET /file?path=        a file's text, and where `..data` beside it points
GET /api?path=         what the API server answers this pod's ServiceAccount: {"status": ...}
POST /ready, /unready  change what /readyz says
POST /write?path=      write a file; {"error": ...} when it may not
POST /exit?code=       end at once

With JOURNAL=PATH it appends a line there when it starts, gets SIGTERM, and ends; after SIGTERM it stays for
LINGER seconds. With STUBBORN set it ignores SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from types import FrameType

PORT = 8080
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def journal(line: str) -> None:
    """One line for the test to find."""
    if path := os.environ.get("JOURNAL"):
        with Path(path).open("a", encoding="utf-8") as lines:
            lines.write(line + "\n")


def ask_api(path: str) -> dict[str, object]:
    """As any client in a pod does: the environment's address, the mounted token and authority."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    token = (_ACCOUNT / "token").read_text(encoding="utf-8")
    request = urllib.request.Request(
        f"https://{host}:{port}{path}", headers={"Authorization": f"Bearer {token}"}
    )
    trusted = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
    try:
        with urllib.request.urlopen(request, context=trusted, timeout=10) as answer:  # noqa: S310
            return {"status": answer.status}
    except urllib.error.HTTPError as refused:
        return {"status": refused.code}


class Puppet(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    ready = True

    def do_GET(self) -> None:
        target = urlsplit(self.path)
        asked = dict(parse_qsl(target.query))
        if target.path == "/readyz":
            self._answer(200 if Puppet.ready else 503, {})
        elif target.path == "/file":
            path = Path(asked["path"])
            data = path.parent / "..data"
            link = str(data.readlink()) if data.is_symlink() else None
            self._answer(200, {"text": path.read_text(encoding="utf-8"), "data": link})
        elif target.path == "/api":
            self._answer(200, ask_api(asked["path"]))
        else:
            self._answer(200, {"pod": os.environ["HOSTNAME"]})

    def do_POST(self) -> None:
        target = urlsplit(self.path)
        asked = dict(parse_qsl(target.query))
        if target.path in {"/ready", "/unready"}:
            Puppet.ready = target.path == "/ready"
            self._answer(200, {})
        elif target.path == "/write":
            try:
                Path(asked["path"]).write_text("written", encoding="utf-8")
            except OSError as refused:
                self._answer(200, {"error": refused.strerror})
            else:
                self._answer(200, {"error": None})
        elif target.path == "/exit":
            os._exit(int(asked["code"]))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name above
        """Probes would fill the log."""

    def _answer(self, status: int, body: dict[str, object]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    """Serve until SIGTERM."""
    server = ThreadingHTTPServer(("0.0.0.0", PORT), Puppet)

    def stop(_number: int, _frame: FrameType | None) -> None:
        journal("SIGTERM")
        if not os.environ.get("STUBBORN"):
            threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    journal("start")
    print("serving", flush=True)  # noqa: T201  # for kubectl logs
    server.serve_forever()
    time.sleep(float(os.environ.get("LINGER", "0")))
    journal("end")


if __name__ == "__main__":
    main()
