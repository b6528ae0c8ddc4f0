"""The API server's audit log: who asked for what, and how that was answered."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ("ApiRequest", "read")


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One answered request."""

    user: str
    verb: str
    """A server-side apply is `patch`; one that creates (201) needs the right to `create` as well."""
    group: str
    resource: str
    """With its subresource: `cosineindexes/status`. For a path that is no resource, the path."""
    namespace: str
    status: int


def read(log: Path) -> Iterator[ApiRequest]:
    """Requests in the order in which they were answered; the line that is being written is left out."""
    for line in log.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield _request(json.loads(line))


def _request(event: dict[str, Any]) -> ApiRequest:
    target = event.get("objectRef", {})
    parts = (target.get("resource", event["requestURI"]), target.get("subresource"))
    return ApiRequest(
        user=event["user"].get("username", ""),
        verb=event["verb"],
        group=target.get("apiGroup", ""),
        resource="/".join(part for part in parts if part),
        namespace=target.get("namespace", ""),
        status=event.get("responseStatus", {}).get("code", 0),
    )
