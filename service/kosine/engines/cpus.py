"""How many CPUs this process may use: what the scheduler allows and what the cgroups above it grant.

Inside a container the machine's CPU count says nothing. Threads beyond the quota get the whole process
throttled, event loop included, so a fractional quota is rounded down.
"""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = (
    "Bfloat16",
    "available_cpus",
    "bfloat16_unit",
    "blas_environment",
    "cpu_limit",
    "parse_cpu_max",
    "parse_quota",
)

Bfloat16 = Literal["amx", "avx512", "off"]
"""What multiplies bfloat16, the faster first. Either is faster than float32, and sums in it."""

_V1_MOUNTS = ("cpu", "cpu,cpuacct")


def parse_cpu_max(text: str) -> float | None:
    """CPUs granted by a cgroup v2 `cpu.max`; None: no limit.

    >>> parse_cpu_max("150000 100000"), parse_cpu_max("max 100000")
    (1.5, None)
    """
    quota, _, period = text.strip().partition(" ")
    return None if quota == "max" else int(quota) / int(period or 100_000)


def parse_quota(quota: str, period: str) -> float | None:
    """CPUs granted by a cgroup v1 `cpu.cfs_quota_us` and `cpu.cfs_period_us`; None: no limit.

    >>> parse_quota("200000", "100000"), parse_quota("-1", "100000")
    (2.0, None)
    """
    return int(quota) / int(period) if int(quota) > 0 else None


def cpu_limit(quotas: Iterable[float], allowed: int) -> int:
    """Whole CPUs under the tightest quota and the scheduler's set, at least one.

    >>> cpu_limit([2.5, 4.0], 8), cpu_limit([0.5], 8), cpu_limit([], 8)
    (2, 1, 8)
    """
    return max(1, min([allowed, *(math.floor(quota) for quota in quotas)]))


def available_cpus(root: Path = Path("/")) -> int:
    """CPUs of this process, as /proc and /sys under `root` tell; files that are missing limit nothing."""
    return cpu_limit(_quotas(root), len(os.sched_getaffinity(0)))


def blas_environment() -> dict[str, str]:
    """What OpenBLAS is to be told before NumPy is loaded, when it is read once.

    Its threads spin for 20 ms after each product otherwise, and take the cores from TensorFlow's
    (docs/performance.md); and it starts one for each core of the machine, whatever a container may use.
    """
    return {"OPENBLAS_THREAD_TIMEOUT": "4", "OPENBLAS_NUM_THREADS": str(available_cpus())}


def bfloat16_unit(root: Path = Path("/")) -> Bfloat16:
    """What the CPU has, as `root`/proc says: Intel's since Sapphire Rapids AMX, AMD's since Zen 4 AVX512."""
    lines = _read(root / "proc/cpuinfo").splitlines()
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    if "amx_bf16" in flags:
        return "amx"
    return "avx512" if "avx512_bf16" in flags else "off"


def _quotas(root: Path) -> Iterator[float]:
    for folder in _cgroup_folders(root):
        v2 = _read(folder / "cpu.max")
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        found = parse_cpu_max(v2) if v2 else parse_quota(quota, period) if quota and period else None
        if found is not None:
            yield found


def _cgroup_folders(root: Path) -> Iterator[Path]:
    """Every cgroup above this process. In a container the path may lie outside the mount; its top remains."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        mounts = _V1_MOUNTS if "cpu" in controllers.split(",") else () if controllers else (".",)
        inside = PurePosixPath(path).relative_to("/")
        for mount in mounts:
            for group in (inside, *inside.parents):
                yield root / "sys/fs/cgroup" / mount / group


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
