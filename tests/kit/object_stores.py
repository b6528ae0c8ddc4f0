"""Object stores for tests: real servers in processes of their own, and how a job writes to them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

import httpx
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from kosine.settings import GcsSettings, S3Settings, StoresSettings
from tests.kit.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

__all__ = (
    "BUCKET",
    "REGION",
    "ObjectServer",
    "fake_gcs_server",
    "gcs_emulator",
    "moto_server",
    "versitygw_server",
)

BUCKET = "vectors"
REGION = "us-east-1"
_STARTUP_SECONDS = 30.0
_VERSIONED = (
    b'<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Status>Enabled</Status></VersioningConfiguration>"
)


@dataclass(frozen=True, slots=True)
class _Signed(httpx.Auth):
    """Signature 4 of S3 over method, path, headers and body."""

    access_key: str
    secret_key: str

    requires_request_body = True

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        signed = AWSRequest(request.method, str(request.url), data=request.content)
        signed.headers["Host"] = request.headers["Host"]
        S3SigV4Auth(Credentials(self.access_key, self.secret_key), "s3", REGION).add_auth(signed)
        request.headers.update(dict(signed.headers.items()))
        yield request


@dataclass(frozen=True, slots=True)
class ObjectServer:
    """A store with a bucket, and how whoever has these keys uses it."""

    kind: Literal["s3", "gs"]
    endpoint: str
    bucket: str = BUCKET
    access_key: str = "writer"
    secret_key: str = "secret-of-writer"  # noqa: S105  of a server on loopback that lives as long as a test

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.endpoint.rpartition(":")[2])

    def uri(self, key: str) -> str:
        """What an index is configured with."""
        return f"{self.kind}://{self.bucket}/{key}"

    def settings(self, *, endpoint: str | None = None) -> StoresSettings:
        """How kosine is told to reach it, or what stands before it at `endpoint`."""
        url = endpoint or self.endpoint
        if self.kind == "s3":
            return StoresSettings(s3=S3Settings(endpoint_url=url, region=REGION))
        return StoresSettings(gcs=GcsSettings(endpoint_url=url, anon=True))

    def environment(self) -> dict[str, str]:
        """Its credentials, where S3 clients look for them first."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def make_bucket(self, *, versioned: bool = False) -> None:
        """The bucket, which is not there; on S3 maybe one that keeps versions."""
        if self.kind == "gs":
            self.send("POST", "/storage/v1/b?project=tests", json.dumps({"name": self.bucket}).encode())
            return
        self.send("PUT", f"/{self.bucket}")
        if versioned:
            self.send("PUT", f"/{self.bucket}?versioning=", _VERSIONED)

    def put(self, key: str, content: bytes) -> None:
        """Write the object in one request, as every publisher should."""
        if self.kind == "s3":
            self.send("PUT", f"/{self.bucket}/{quote(key)}", content)
        else:
            path = f"/upload/storage/v1/b/{self.bucket}/o?uploadType=media&name={quote(key, safe='')}"
            self.send("POST", path, content)

    def get(self, key: str) -> bytes:
        """The object."""
        return self.send("GET", self._path(key, "?alt=media"))

    def delete(self, key: str) -> None:
        """Remove the object."""
        self.send("DELETE", self._path(key, ""))

    def keys(self, prefix: str) -> list[str]:
        """Of all objects whose key begins so."""
        if self.kind == "s3":
            listed = self.send("GET", f"/{self.bucket}?list-type=2&prefix={quote(prefix, safe='')}")
            return sorted(re.findall("<Key>(.*?)</Key>", listed.decode()))
        listed = self.send("GET", f"/storage/v1/b/{self.bucket}/o?prefix={quote(prefix, safe='')}")
        return sorted(item["name"] for item in json.loads(listed).get("items", ()))

    def send(self, method: str, path: str, content: bytes = b"") -> bytes:
        """What the server answers to a request that it does not refuse."""
        auth = _Signed(self.access_key, self.secret_key) if self.kind == "s3" else None
        headers = {"Content-Type": "application/octet-stream"} if content else {}
        url = f"{self.endpoint}{path}"
        answer = httpx.request(method, url, auth=auth, headers=headers, content=content, timeout=60)
        answer.raise_for_status()
        return answer.content

    def _path(self, key: str, query: str) -> str:
        if self.kind == "s3":
            return f"/{self.bucket}/{quote(key)}"
        return f"/storage/v1/b/{self.bucket}/o/{quote(key, safe='')}{query}"


@contextlib.contextmanager
def moto_server() -> Iterator[ObjectServer]:
    """S3 by moto: ranges, If-Match and ETags as they should be; no authorisation."""
    port = free_port()
    with _process([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port):
        server = ObjectServer("s3", f"http://127.0.0.1:{port}")
        server.make_bucket()
        yield server


@contextlib.contextmanager
def gcs_emulator() -> Iterator[ObjectServer]:
    """Google's JSON API by gcp-storage-emulator: generations and ranges; preconditions are not looked at."""
    port = free_port()
    address = ["--host", "127.0.0.1", "--port", str(port), "--in-memory", "--default-bucket", BUCKET]
    with _process([sys.executable, "-m", "gcp_storage_emulator", "start", *address], port):
        yield ObjectServer("gs", f"http://127.0.0.1:{port}")


@contextlib.contextmanager
def versitygw_server(program: Path, folder: Path) -> Iterator[ObjectServer]:
    """S3 by versitygw: signatures and policies are checked, writes are conditional, versions can be kept.

    `folder` is where it keeps objects, versions and accounts.
    """
    for part in ("objects", "versions", "accounts"):
        (folder / part).mkdir()
    server = ObjectServer("s3", f"http://127.0.0.1:{free_port()}")
    address = server.endpoint.removeprefix("http://")
    common = ["--port", address, "--iam-dir", str(folder / "accounts"), "--iam-cache-disable", "--quiet"]
    backend = ["posix", "--versioning-dir", str(folder / "versions"), str(folder / "objects")]
    account = {"ROOT_ACCESS_KEY": server.access_key, "ROOT_SECRET_KEY": server.secret_key}
    with _process([str(program), *common, *backend], server.port, **account):
        server.make_bucket()
        yield server


@contextlib.contextmanager
def fake_gcs_server(program: Path) -> Iterator[ObjectServer]:
    """Google's JSON API by fake-gcs-server: generations, ranges, resumable uploads, conditional writes."""
    server = ObjectServer("gs", f"http://127.0.0.1:{free_port()}")
    address = ["-host", "127.0.0.1", "-port", str(server.port), "-scheme", "http", "-backend", "memory"]
    names = ["-external-url", server.endpoint, "-public-host", server.endpoint.removeprefix("http://")]
    with _process([str(program), *address, *names], server.port):
        server.make_bucket()
        yield server


@contextlib.contextmanager
def _process(command: Sequence[str], port: int, **variables: str) -> Iterator[None]:
    environment = {**os.environ, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false", **variables}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + _STARTUP_SECONDS
        while not _answers(port):
            assert process.poll() is None, f"{command} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"{command} does not listen"
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
