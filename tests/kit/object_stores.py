"""Object stores for tests: real servers in processes of their own, and how a job writes to them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ("BUCKET", "ObjectServer", "gcs_emulator", "moto_server")

BUCKET = "vectors"
_STARTUP_SECONDS = 30.0
_SIGNED = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=0"
}
"""moto lets nobody unnamed replace an object, and checks no signature."""


@dataclass(frozen=True, slots=True)
class ObjectServer:
    """A store with the bucket `vectors`, reached without credentials as a publisher would with them."""

    kind: Literal["s3", "gs"]
    endpoint: str

    def uri(self, key: str) -> str:
        """What an index is configured with."""
        return f"{self.kind}://{BUCKET}/{key}"

    def put(self, key: str, content: bytes) -> None:
        """Write the object in one request, as every publisher should."""
        if self.kind == "s3":
            answer = httpx.put(self._url(key), headers=_SIGNED, content=content, timeout=60)
        else:
            url = f"{self.endpoint}/upload/storage/v1/b/{BUCKET}/o"
            query = {"uploadType": "media", "name": key}
            headers = {"Content-Type": "application/octet-stream"}
            answer = httpx.post(url, params=query, headers=headers, content=content, timeout=60)
        answer.raise_for_status()

    def delete(self, key: str) -> None:
        """Remove the object."""
        httpx.delete(self._url(key), headers=_SIGNED, timeout=60).raise_for_status()

    def _url(self, key: str) -> str:
        if self.kind == "s3":
            return f"{self.endpoint}/{BUCKET}/{quote(key)}"
        return f"{self.endpoint}/storage/v1/b/{BUCKET}/o/{quote(key, safe='')}"


@contextlib.contextmanager
def moto_server() -> Iterator[ObjectServer]:
    """S3 by moto: ranges, If-Match and ETags as they should be; no authorisation."""
    port = _free_port()
    with _process([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port):
        endpoint = f"http://127.0.0.1:{port}"
        httpx.put(f"{endpoint}/{BUCKET}", timeout=60).raise_for_status()
        yield ObjectServer("s3", endpoint)


@contextlib.contextmanager
def gcs_emulator() -> Iterator[ObjectServer]:
    """Google's JSON API by gcp-storage-emulator: generations and ranges; preconditions are not looked at."""
    port = _free_port()
    address = ["--host", "127.0.0.1", "--port", str(port), "--in-memory", "--default-bucket", BUCKET]
    with _process([sys.executable, "-m", "gcp_storage_emulator", "start", *address], port):
        yield ObjectServer("gs", f"http://127.0.0.1:{port}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _process(command: Sequence[str], port: int) -> Iterator[None]:
    environment = {**os.environ, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + _STARTUP_SECONDS
        while not _answers(port):
            assert process.poll() is None, f"{command[2]} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"{command[2]} does not listen"
            time.sleep(0.02)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
