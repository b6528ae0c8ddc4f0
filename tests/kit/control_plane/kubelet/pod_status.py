"""The status that a kubelet reports of a pod: pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.kit.control_plane.namespaces import NODE_ADDRESS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.kit.control_plane.kubelet.container_state import ContainerState

__all__ = ("FINAL", "phase_of", "pod_status")

FINAL = ("Succeeded", "Failed")


def phase_of(inits: Sequence[ContainerState], containers: Sequence[ContainerState]) -> str:
    """Pending until a container has run, Succeeded or Failed when all are over."""
    if any(init.over is not None and init.over.code for init in inits):
        return "Failed"
    ends = [container.over for container in containers if container.over is not None]
    if containers and len(ends) == len(containers):
        return "Failed" if any(end.code for end in ends) else "Succeeded"
    has_run = any(
        one.running_since is not None or one.last is not None or one.over is not None for one in containers
    )
    return "Running" if has_run else "Pending"


def pod_status(
    *,
    phase: str,
    reason: str | None,
    address: str,
    started: str,
    inits: Sequence[ContainerState],
    containers: Sequence[ContainerState],
    previous: Mapping[str, Any],
    now: str,
) -> dict[str, Any]:
    """The API's PodStatus; a condition that says what it said before keeps its lastTransitionTime."""
    ready = phase not in FINAL and all(container.ready for container in containers)
    initialized = all(init.over is not None and init.over.code == 0 for init in inits)
    facts = {
        "PodReadyToStartContainers": True,
        "PodScheduled": True,
        "Initialized": initialized,
        "ContainersReady": ready,
        "Ready": ready,
    }
    before = {condition["type"]: condition for condition in previous.get("conditions", ())}
    conditions = []
    for name, fact in facts.items():
        old = before.get(name, {})
        word = str(fact)
        since = old["lastTransitionTime"] if old.get("status") == word else now
        conditions.append({"type": name, "status": word, "lastTransitionTime": since})
    status: dict[str, Any] = {
        "phase": phase,
        "conditions": conditions,
        "podIP": address,
        "podIPs": [{"ip": address}],
        "hostIP": NODE_ADDRESS,
        "hostIPs": [{"ip": NODE_ADDRESS}],
        "startTime": started,
        "containerStatuses": [container.status() for container in containers],
    }
    if inits:
        status["initContainerStatuses"] = [init.status() for init in inits]
    if reason is not None:
        status["reason"] = reason
    return status
