"""The operator, killed at one of its writes: `python -m tests.kit.operator_killed`.

It is the real one but for what the client does around a write. KILL_WHEN says at which: `before` or `after`
its n-th (KILL_AT), or `changed`: as soon as one has changed an object, so that it lives for one change.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from kosine_operator.api_errors import NotFound
from kosine_operator.cli import main
from kosine_operator.cluster import Cluster

_request = Cluster._request
_writes = 0


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def _counted(self: Cluster, method: str, path: str, **how: Any) -> dict[str, Any]:
    global _writes  # noqa: PLW0603  there is one operator in this process
    _writes += method != "GET"
    due = method != "GET" and _writes == int(os.environ["KILL_AT"])
    if due and os.environ["KILL_WHEN"] == "before":
        _die()
    answer = await _request(self, method, path, **how)
    if due:
        _die()
    return answer


async def _once(self: Cluster, method: str, path: str, **how: Any) -> dict[str, Any]:
    if method == "GET" or "dryRun" in (how.get("query") or {}):
        return await _request(self, method, path, **how)
    before = await _version(self, path)
    answer = await _request(self, method, path, **how)
    if before != answer.get("metadata", {}).get("resourceVersion"):
        _die()
    return answer


async def _version(cluster: Cluster, path: str) -> str | None:
    try:
        found = await _request(cluster, "GET", path, what=path)
    except NotFound:
        return None
    return str(found["metadata"]["resourceVersion"])


if __name__ == "__main__":
    Cluster._request = _once if os.environ["KILL_WHEN"] == "changed" else _counted  # type: ignore[method-assign]
    main(prog_name="kosine-operator")
