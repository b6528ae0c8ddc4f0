"""Ways to the API server: kubeconfig files and a small client."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ("Access", "Answer")


@dataclass(frozen=True, slots=True)
class Answer:
    """Status 0: nobody answered."""

    status: int
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Access:
    """Who asks whom: an address, the authority to trust, a bearer token."""

    url: str
    authority: Path
    token: str

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content_type: str = "application/json",
        timeout: float = 10.0,  # synchronous: the socket's own
    ) -> Answer:
        """Ask once; a server that is away is an Answer too."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
        content = None if body is None else json.dumps(body)
        try:
            # The API server writes its certificate while it starts, so it is read for each request.
            trusted = ssl.create_default_context(cafile=str(self.authority))
            with httpx.Client(verify=trusted, timeout=timeout, trust_env=False) as client:
                answer = client.request(method, self.url + path, content=content, headers=headers)
        except (OSError, httpx.TransportError):
            return Answer(0, {})
        try:
            decoded = answer.json()
        except ValueError:
            decoded = {"message": answer.text}
        return Answer(answer.status_code, decoded)

    def write_kubeconfig(self, path: Path, *, namespace: str = "default") -> Path:
        """A kubeconfig (JSON is YAML) whose one context is this access."""
        name = "kosine-test"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [
                {"name": name, "cluster": {"server": self.url, "certificate-authority": str(self.authority)}}
            ],
            "users": [{"name": name, "user": {"token": self.token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": namespace}}],
        }
        path.write_text(json.dumps(config), encoding="utf-8")
        return path
