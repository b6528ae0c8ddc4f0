"""What the kubelet's process is told: one JSON file."""

from __future__ import annotations

import msgspec

__all__ = ("Image", "KubeletSettings")


class Image(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a container runs: a command of this machine, or one of a built image."""

    command: tuple[str, ...]
    """The entrypoint."""
    root: str = ""
    """Folder of the image's file system; empty: this machine's."""
    environment: dict[str, str] = {}
    """ENV of the image."""
    user: str = ""
    """UID:GID of the image; with this machine's file system it is whoever runs the kubelet."""


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
    images: dict[str, Image]
    """By reference."""
    image_folders: tuple[str, ...] = ()
    """Folders that a container must see even where a volume is mounted over one above them."""
    node: str = "node-0"
    capacity: dict[str, str]
    """What the scheduler may give to pods: resource -> quantity."""
    sync_interval: float = 15.0
    """How long a changed ConfigMap or Secret waits until a pod's files follow, unless the pod itself changes.
    A real kubelet takes 60 to 90 s."""
