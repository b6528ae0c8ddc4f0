"""Images of the Dockerfile, built without a container engine and run as a restricted pod would run them."""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("BUILD", "Image", "ImageBuildMissing", "image")

BUILD = Path(__file__).parents[2] / "scripts" / "build-images"
_RUN = Path(__file__).parents[1] / "images" / "run-image"
_MISSING = 2


class ImageBuildMissing(Exception):
    """There is nothing to build with; says what to install."""


@dataclass(frozen=True, slots=True)
class Image:
    """A built image whose file system is mounted."""

    root: Path
    config: dict[str, Any]

    @property
    def entrypoint(self) -> list[str]:
        """As in the Dockerfile."""
        return list(self.config["Entrypoint"])

    def files(self, pattern: str, *, below: str = "") -> list[str]:
        """Paths in the image that match; of what the Dockerfile added, with `below`."""
        return sorted(str(path.relative_to(self.root)) for path in (self.root / below).rglob(pattern))

    def command(self, *arguments: str | Path) -> list[str | Path]:
        """What runs `arguments` in the image; see tests/images/run-image."""
        return [_RUN, self.root, *arguments]

    def environment(self, **more: str) -> dict[str, str]:
        """Of that command: the image's own, and more."""
        lines = [*self.config["Env"], *(f"{name}={value}" for name, value in more.items())]
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "IMAGE_ENV": "\n".join(lines)}

    def run(self, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run to the end."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )


@contextmanager
def image(target: str) -> Iterator[Image]:
    """Build a target of the Dockerfile, mount it, and let go of it afterwards. Raises ImageBuildMissing."""
    built = subprocess.run([BUILD, target], capture_output=True, text=True, check=False)
    if built.returncode == _MISSING:
        raise ImageBuildMissing(built.stderr.strip())
    assert built.returncode == 0, built.stdout[-4000:] + built.stderr[-4000:]
    name = f"localhost/kosine-{target}:ci"
    container = _in_store("from", "--pull-never", name)
    try:
        config = json.loads(_in_store("inspect", "--type", "image", name))["OCIv1"]["config"]
        yield Image(Path(_in_store("mount", container)), config)
    finally:
        _in_store("umount", container)
        _in_store("rm", container)


def _in_store(*command: str) -> str:
    done = subprocess.run([BUILD, "--in-store", *command], capture_output=True, text=True, check=True)
    return done.stdout.strip()
