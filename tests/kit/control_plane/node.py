"""The one node of a test cluster: the process kubelet as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tests.kit.control_plane.kubelet.settings import Image, KubeletSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.kit.control_plane.control_plane import ControlPlane

__all__ = ("node",)

CAPACITY = {"cpu": "64", "memory": "256Gi", "pods": "110", "ephemeral-storage": "100Gi"}
"""More than the machine has: pods are refused by a test's own wish only."""
_ROOT = Path(__file__).parents[3]


@contextmanager
def node(plane: ControlPlane, images: Mapping[str, Image]) -> Iterator[None]:
    """A node that runs `images` (by reference); there when the block begins, its pods end with it."""
    folder = plane.files.folder / "pods"
    folder.mkdir()
    settings = KubeletSettings(
        url=plane.admin.url,
        token=plane.admin.token,
        authority=str(plane.files.authority),
        certificate=str(plane.files.authority),
        certificate_key=str(plane.files.certificate_key),
        folder=str(folder),
        images={name: _with_environment(each) for name, each in images.items()},
        capacity=CAPACITY,
        image_folders=tuple(sorted({str(_ROOT), sys.prefix, sys.base_prefix})),
    )
    path = plane.files.folder / "kubelet.json"
    path.write_bytes(msgspec.json.encode(settings))
    with plane.files.log("kubelet").open("ab") as log:
        kubelet = plane.processes["kubelet"] = subprocess.Popen(
            [sys.executable, "-m", "tests.kit.control_plane.kubelet", path], cwd=_ROOT, stdout=log, stderr=log
        )
    try:
        node_path = f"/api/v1/nodes/{settings.node}"
        plane.until(
            lambda: "capacity" in plane.admin.request("GET", node_path).body.get("status", {}), what="node"
        )
        yield
    finally:
        plane.processes.pop("kubelet", None)
        kubelet.terminate()
        kubelet.wait()


def _with_environment(image: Image) -> Image:
    """With this machine's file system: this Python's programs come first, sources are those of the tests."""
    if image.root:
        return image
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    sources = os.environ.get("PYTHONPATH")
    variables = {"PATH": path, "HOME": "/tmp", **({"PYTHONPATH": sources} if sources else {})}  # noqa: S108
    return Image(command=image.command, environment=variables)
