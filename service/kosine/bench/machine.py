"""What a figure depends on: without these facts it means nothing elsewhere."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from msgspec import Struct

__all__ = ("Machine", "describe_machine")

_PACKAGES = ("httptools", "litestar", "msgspec", "numpy", "tensorflow", "tensorflow-cpu", "uvicorn", "uvloop")


class Machine(Struct, frozen=True, kw_only=True):
    """Where the bench ran; the service, too, if the bench started it."""

    cpu: str
    cores: int
    """That this process may use."""
    memory_bytes: int
    system: str
    python: str
    packages: dict[str, str]
    load_average: float
    """Of one minute, before the run."""


def describe_machine() -> Machine:
    """The facts now."""
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        packages={name: found for name in _PACKAGES if (found := _version(name))},
        load_average=round(os.getloadavg()[0], 2),
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
