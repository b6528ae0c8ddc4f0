"""What is reported of a container, and when it runs again: values and pure decisions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

__all__ = ("ContainerState", "Ended", "backoff", "restarts", "timestamp")


@dataclass(frozen=True, slots=True)
class Ended:
    """One run that is over."""

    code: int
    started: str
    finished: str
    reason: str = ""

    def status(self) -> dict[str, Any]:
        """The API's ContainerStateTerminated."""
        return {
            "exitCode": self.code,
            "startedAt": self.started,
            "finishedAt": self.finished,
            "reason": self.reason or ("Error" if self.code else "Completed"),
        }


@dataclass(slots=True)
class ContainerState:
    """Of one container over all its runs."""

    name: str
    image: str
    waiting: tuple[str, str] | None = ("ContainerCreating", "")
    """Reason and message while nothing runs and nothing is over."""
    running_since: str | None = None
    started: bool = False
    """The startup probe has passed."""
    ready: bool = False
    restarts: int = 0
    last: Ended | None = None
    """The run before."""
    over: Ended | None = None
    """Set when it will not run again."""

    def status(self) -> dict[str, Any]:
        """The API's ContainerStatus."""
        return {
            "name": self.name,
            "image": self.image,
            "imageID": self.image,
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self._state(),
            "lastState": {"terminated": self.last.status()} if self.last else {},
        }

    def _state(self) -> dict[str, Any]:
        if self.over is not None:
            return {"terminated": self.over.status()}
        if self.running_since is not None:
            return {"running": {"startedAt": self.running_since}}
        reason, message = self.waiting or ("ContainerCreating", "")
        return {"waiting": {"reason": reason, "message": message}}


def restarts(policy: str, code: int, *, init: bool) -> bool:
    """Whether a container that ended with `code` runs again under the pod's restartPolicy."""
    if init:
        return code != 0 and policy != "Never"
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def backoff(restart: int) -> float:
    """Seconds before the n-th restart, from 1: none, then 0.5 doubling up to 10.

    The real kubelet: none, then 10 doubling up to 300.
    """
    return 0.0 if restart <= 1 else min(0.5 * 2.0 ** (restart - 2), 10.0)


def timestamp() -> str:
    """Now, as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
