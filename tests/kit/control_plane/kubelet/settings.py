"""What the kubelet's process is told: one JSON file."""

from __future__ import annotations

import msgspec

__all__ = ("KubeletSettings",)


class KubeletSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Paths are absolute; durations are seconds."""

    url: str
    """The API server."""
    token: str
    authority: str
    """Certificate file that the API server's is checked with."""
    certificate: str
    """Certificate file that `kubectl logs` is answered with."""
    certificate_key: str
    folder: str
    """For volumes and logs of pods; exists."""
    images: dict[str, tuple[str, ...]]
    """Image reference -> the command that is its entrypoint."""
    environment: dict[str, str] = {}
    """What every image's ENV says."""
    image_folders: tuple[str, ...] = ()
    """Folders that a container must see even where a volume is mounted over one above them."""
    node: str = "node-0"
    capacity: dict[str, str]
    """What the scheduler may give to pods: resource -> quantity."""
    sync_interval: float = 15.0
    """How long a changed ConfigMap or Secret waits until a pod's files follow, unless the pod itself changes.
    A real kubelet takes 60 to 90 s."""
