"""What the containers of one pod share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.kit.control_plane.kubelet.resources import Pod
    from tests.kit.control_plane.kubelet.settings import KubeletSettings
    from tests.kit.control_plane.kubelet.sources import Sources
    from tests.kit.control_plane.kubelet.volumes import Volumes

__all__ = ("PodContext",)


@dataclass(slots=True, eq=False)
class PodContext:
    """The pod as it was bound, where its files and its network are, and two signals."""

    settings: KubeletSettings
    pod: Pod
    address: str
    network: int
    """A process in the pod's network namespace."""
    folder: Path
    sources: Sources
    volumes: Volumes
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """A container's state is not what it was."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Nothing is started any more."""
