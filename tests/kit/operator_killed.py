"""The operator, killed right before or right after its n-th write: `python -m tests.kit.operator_killed`.

It is the real one but for the client's counting. KILL_AT is n, KILL_WHEN is `before` or `after`.
"""

from __future__ import annotations

import os
import signal
from typing import Any

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


if __name__ == "__main__":
    Cluster._request = _counted  # type: ignore[method-assign]
    main(prog_name="kosine-operator")
