"""The node that the kubelet is: registered once; nobody asks whether it lives."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from tests.kit.control_plane.kubelet.api import MERGE_PATCH, ApiRefused
from tests.kit.control_plane.kubelet.container_state import timestamp
from tests.kit.control_plane.namespaces import NODE_ADDRESS

if TYPE_CHECKING:
    from tests.kit.control_plane.kubelet.api import Api
    from tests.kit.control_plane.kubelet.settings import KubeletSettings

__all__ = ("register",)


async def register(api: Api, settings: KubeletSettings, *, logs_port: int) -> None:
    """Create the Node, or take over the one of a kubelet before; ready for pods afterwards."""
    labels = {"kubernetes.io/hostname": settings.node, "kubernetes.io/os": "linux"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": settings.node, "labels": labels}}
    with suppress(ApiRefused):  # 409: it is there
        await api.request("POST", "/api/v1/nodes", node)
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "lastHeartbeatTime": timestamp(),
        "lastTransitionTime": timestamp(),
    }
    status = {
        "capacity": settings.capacity,
        "allocatable": settings.capacity,
        "conditions": [ready],
        "addresses": [{"type": "InternalIP", "address": NODE_ADDRESS}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": logs_port}},
    }
    path = f"/api/v1/nodes/{settings.node}"
    await api.request("PATCH", f"{path}/status", {"status": status}, content_type=MERGE_PATCH)
    await api.request("PATCH", path, {"spec": {"taints": None}}, content_type=MERGE_PATCH)
