"""The CPU limit, from the files a kernel would show."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from kosine.engines.cpus import available_cpus, bfloat16_unit, cpu_limit, parse_cpu_max, parse_quota

if TYPE_CHECKING:
    from pathlib import Path

ALLOWED = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max 100000\n", None), ("200000 100000\n", 2.0), ("150000 100000", 1.5), ("50000", 0.5), ("max", None)],
)
def test_cpu_max_is_quota_over_period(text: str, expected: float | None) -> None:
    """Version 2 writes `quota period` in microseconds, or max."""
    assert expected == parse_cpu_max(text)


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [("-1", "100000", None), ("400000", "100000", 4.0), ("25000\n", "50000\n", 0.5)],
)
def test_cfs_quota_is_quota_over_period(quota: str, period: str, expected: float | None) -> None:
    """Version 1 writes them to two files, -1 for no limit."""
    assert expected == parse_quota(quota, period)


@pytest.mark.parametrize(
    ("quotas", "allowed", "expected"),
    [
        ([], 8, 8),
        ([2.0], 8, 2),
        ([16.0], 8, 8),
        ([2.9], 8, 2),
        ([0.25], 8, 1),
        ([4.0, 2.0, 3.0], 8, 2),
        ([4.0], 1, 1),
    ],
)
def test_the_tightest_limit_counts_in_whole_cpus(quotas: list[float], allowed: int, expected: int) -> None:
    """The smallest of all quotas and the scheduler's set, rounded down, at least one."""
    assert expected == cpu_limit(quotas, allowed)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ALLOWED),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, ALLOWED),
        (
            {
                "proc/self/cgroup": "0::/pods/pod7/main\n",
                "sys/fs/cgroup/pods/pod7/cpu.max": "100000 100000\n",
                "sys/fs/cgroup/pods/pod7/main/cpu.max": "max 100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/a\n3:cpu,cpuacct:/docker/abc\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "3:cpuset:/x\n1:cpu:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            ALLOWED,
        ),
    ],
    ids=["nothing mounted", "v2", "v2 unlimited", "v2 of a parent", "v1 outside its mount", "v1 unlimited"],
)
def test_every_cgroup_above_the_process_is_looked_at(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    """Versions 1 and 2, a limit set on a parent, a path the container cannot see, and no cgroups at all."""
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert expected == available_cpus(tmp_path)


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16\n", "avx512"),
        ("flags\t\t: fpu avx512_bf16 amx_bf16 amx_tile\n", "amx"),
        ("processor\t: 0\nflags\t\t: fpu avx512f\nvmx flags\t: vnmi\n", "off"),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", "off"),
        (None, "off"),
    ],
    ids=["avx512", "both", "neither", "no x86", "no file"],
)
def test_what_multiplies_bfloat16_is_read_from_the_flags(
    tmp_path: Path, cpuinfo: str | None, expected: str
) -> None:
    """The faster of two; what was not measured counts as none."""
    if cpuinfo is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
    assert expected == bfloat16_unit(tmp_path)
