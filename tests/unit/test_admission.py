"""Memory is admitted before it is used (law 7, N16)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import psutil
import pytest

from kosine.errors import LoadCode, LoadError, Stage
from kosine.loading import admission as admission_module
from kosine.loading.admission import Admission, Memory, MemoryNeed, MemoryProbe, admit

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30


def need(matrix: int) -> MemoryNeed:
    """A load that takes a matrix and next to nothing else."""
    return MemoryNeed(matrix=matrix, ids=1, buffers=2, scratch=3)


@pytest.mark.parametrize(
    ("matrix", "limit", "used", "reserved", "fits"),
    [
        (94, 100, 0, 0, True),
        (95, 100, 0, 0, False),
        (44, 100, 50, 0, True),
        (45, 100, 50, 0, False),
        (34, 100, 50, 10, True),
        (35, 100, 50, 10, False),
        (1, 100, 120, 0, False),
    ],
)
def test_a_load_fits_beside_what_is_used_and_booked(
    matrix: int, limit: int, used: int, reserved: int, *, fits: bool
) -> None:
    """Need, used and booked together may reach the limit, and not one byte more."""
    try:
        admit(need(matrix), limit=limit, used=used, reserved=reserved)
        admitted = True
    except LoadError:
        admitted = False

    assert fits == admitted


def test_a_refusal_gives_the_numbers() -> None:
    """`wont_fit` tells need, limit and use, in bytes for machines and in units for people."""
    with pytest.raises(LoadError) as caught:
        admit(
            MemoryNeed(matrix=3 * GIB, ids=GIB // 2, buffers=0, scratch=0),
            limit=4 * GIB,
            used=GIB,
            reserved=GIB,
        )

    error = caught.value
    assert (LoadCode.WONT_FIT, Stage.ADMIT) == (error.code, error.stage)
    assert (7 * GIB // 2, 4 * GIB, GIB, GIB) == tuple(
        error.facts[name] for name in ("need_bytes", "limit_bytes", "used_bytes", "reserved_bytes")
    )
    for shown in ("3.5 GiB", "4.0 GiB", "1.0 GiB"):
        assert shown in error.detail


def test_loads_in_parallel_do_not_count_the_same_bytes_twice() -> None:
    """While one load holds its booking the next sees that much less, and all of it once that has ended."""
    admission = Admission(lambda: Memory(limit=100, used=0))

    with admission.book(need(50)):
        with pytest.raises(LoadError), admission.book(need(50)):
            pass
        with admission.book(need(30)):
            assert 56 + 36 == admission.reserved

    assert 0 == admission.reserved
    with admission.book(need(94)):
        pass


def test_what_is_allocated_already_is_not_counted_as_booked_too() -> None:
    """A load that has half of its matrix in memory is seen by the probe, so its booking shrinks."""
    used = 0
    admission = Admission(lambda: Memory(limit=100, used=used))

    with admission.book(need(60)) as booking:
        booking.allocated(50)
        used = 50
        with admission.book(need(28)):
            pass
        with pytest.raises(LoadError), admission.book(need(29)):
            pass


def test_memory_that_is_freed_first_counts_as_free() -> None:
    """`resource_preserving` is admitted as if the version that serves were gone."""
    admission = Admission(lambda: Memory(limit=100, used=80))

    with pytest.raises(LoadError), admission.book(need(50)):
        pass
    with admission.book(need(50), freed_first=70):
        pass


def test_bookings_are_atomic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many loads that ask at once no more are admitted than fit."""

    def slow_admit(need: MemoryNeed, **facts: int) -> None:
        admit(need, **facts)
        threading.Event().wait(0.001)

    monkeypatch.setattr(admission_module, "admit", slow_admit)
    admission = Admission(lambda: Memory(limit=100, used=0))
    with ExitStack() as held, ThreadPoolExecutor(16) as threads:

        def book(_: int) -> bool:
            try:
                held.enter_context(admission.book(need(14)))
            except LoadError:
                return False
            return True

        assert 5 == sum(threads.map(book, range(64)))


def fake_machine(root: Path, files: dict[str, str]) -> MemoryProbe:
    """A probe of a machine that has these files below /."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return MemoryProbe(root=root)


def test_a_cgroup_v2_limit_is_found_less_reclaimable_cache(tmp_path: Path) -> None:
    """Page cache that the kernel drops at once is not in the way of a load."""
    probe = fake_machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": f"{GIB}\n",
            "sys/fs/cgroup/memory.current": "700000000\n",
            "sys/fs/cgroup/memory.stat": "anon 100\ninactive_file 600000000\nactive_file 5\n",
        },
    )

    assert Memory(limit=GIB, used=100_000_000) == probe()


def test_the_tightest_of_nested_cgroups_counts(tmp_path: Path) -> None:
    """A pod may be allowed less than its container."""
    probe = fake_machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/container\n",
            "sys/fs/cgroup/pod/container/memory.max": "max\n",
            "sys/fs/cgroup/pod/container/memory.current": "5\n",
            "sys/fs/cgroup/pod/memory.max": f"{2 * GIB}\n",
            "sys/fs/cgroup/pod/memory.current": f"{GIB}\n",
            "sys/fs/cgroup/pod/memory.stat": "inactive_file 0\n",
        },
    )

    assert Memory(limit=2 * GIB, used=GIB) == probe()


def test_a_cgroup_v1_limit_is_found(tmp_path: Path) -> None:
    """Older nodes have one hierarchy a controller; the path is the host's, the mount the container's own."""
    probe = fake_machine(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "300\n",
            "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 100\n",
        },
    )

    assert Memory(limit=GIB, used=200) == probe()


@pytest.mark.parametrize(
    "files",
    [
        {},
        {
            "proc/self/cgroup": "4:memory:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "300\n",
        },
    ],
    ids=["no cgroup", "cgroup without a limit"],
)
def test_without_a_limit_the_machine_is_the_limit(tmp_path: Path, files: dict[str, str]) -> None:
    """What no cgroup bounds, memory does."""
    assert psutil.virtual_memory().total == fake_machine(tmp_path, files)().limit


def test_a_configured_limit_replaces_the_machines(tmp_path: Path) -> None:
    """service.memory_limit bounds this process, whatever else the machine runs."""
    memory = MemoryProbe(limit=GIB, root=tmp_path)()

    assert GIB == memory.limit
    assert 0 < memory.used <= psutil.Process().memory_info().rss * 2
