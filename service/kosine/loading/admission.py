"""Memory is admitted before it is used.

What a load will take is known from the header; what is there is read from the cgroup or the machine. A load
that does not fit is refused with the numbers, and the version that serves keeps its memory. `Admission` books
what it admitted until the load ends, so that loads in parallel do not count the same free bytes twice.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from kosine.errors import LoadCode, LoadError, Stage
from kosine.units import human_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ("Admission", "Booking", "Memory", "MemoryNeed", "MemoryProbe", "admit")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """Upper bound of what one load allocates, in bytes."""

    matrix: int
    """The float32 matrix, padding included; the engine takes it over."""
    ids: int
    buffers: int
    """Chunks of the file while it is decoded; gone after the check."""
    scratch: int
    """What the engine needs for a call."""
    masks: int = 0

    @property
    def total(self) -> int:
        """All of it together."""
        return self.matrix + self.ids + self.buffers + self.scratch + self.masks


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes that may be used, and that are; memory the kernel can take back at once does not count."""

    limit: int
    used: int

    @property
    def free(self) -> int:
        """Never negative."""
        return max(0, self.limit - self.used)


def admit(need: MemoryNeed, *, limit: int, used: int, reserved: int) -> None:
    """LoadError `wont_fit` at ADMIT unless `need` fits beside what is used and what other loads booked."""
    free = limit - used - reserved
    if need.total <= free:
        return
    raise LoadError(
        LoadCode.WONT_FIT,
        f"loading needs {human_size(need.total)} (matrix {human_size(need.matrix)}, "
        f"ids {human_size(need.ids)}, masks {human_size(need.masks)}, buffers {human_size(need.buffers)}, "
        f"engine {human_size(need.scratch)}), but of {human_size(limit)} {human_size(used)} are used and "
        f"{human_size(reserved)} booked by other loads; raise the memory limit, lower batch.max_rows, or "
        "set policy: resource_preserving where memory holds only one version",
        stage=Stage.ADMIT,
        need_bytes=need.total,
        matrix_bytes=need.matrix,
        ids_bytes=need.ids,
        mask_bytes=need.masks,
        buffer_bytes=need.buffers,
        scratch_bytes=need.scratch,
        limit_bytes=limit,
        used_bytes=used,
        reserved_bytes=reserved,
    )


class Booking:
    """Bytes one load was admitted with and has not allocated yet."""

    def __init__(self, size: int) -> None:
        self.outstanding = size
        self._size = size

    def allocated(self, size: int) -> None:
        """So much of it is in use now, so the probe sees it; to be called with growing sizes."""
        self.outstanding = max(0, self._size - size)


class Admission:
    """Books memory for loads. Thread-safe; `probe` blocks, callers are loader threads."""

    def __init__(self, probe: Callable[[], Memory]) -> None:
        self._probe = probe
        self._lock = threading.Lock()
        self._bookings: set[Booking] = set()

    @property
    def reserved(self) -> int:
        """Bytes booked by running loads."""
        return sum(booking.outstanding for booking in tuple(self._bookings))

    @contextlib.contextmanager
    def book(self, need: MemoryNeed, *, freed_first: int = 0) -> Iterator[Booking]:
        """Hold `need` for the time of the block; `freed_first` bytes in use now will be free by then.

        Raises LoadError `wont_fit`.
        """
        with self._lock:
            memory = self._probe()
            used = max(0, memory.used - freed_first)
            admit(need, limit=memory.limit, used=used, reserved=self.reserved)
            booking = Booking(need.total)
            self._bookings.add(booking)
        try:
            yield booking
        finally:
            with self._lock:
                self._bookings.discard(booking)


class MemoryProbe:
    """Reads the tightest limit this process lives under: cgroup v2 or v1, else the machine.

    `limit` (service.memory_limit) replaces all of them and is compared with the process' own resident memory.
    `root` is where `/proc` and `/sys` are found.
    """

    def __init__(self, *, limit: int | None = None, root: Path = Path("/")) -> None:
        self._limit = limit
        self._root = root

    def __call__(self) -> Memory:
        """Look now."""
        if self._limit is not None:
            return Memory(limit=self._limit, used=psutil.Process().memory_info().rss)
        machine = psutil.virtual_memory()
        found = [Memory(limit=machine.total, used=machine.total - machine.available), *self._cgroups()]
        return min(found, key=lambda memory: memory.free)

    def _cgroups(self) -> Iterator[Memory]:
        """Limits of this process' cgroup and of those around it."""
        mounted = self._root / "sys/fs/cgroup"
        for line in _lines(self._root / "proc/self/cgroup"):
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from _limits(mounted, path, _read_v2)
            elif "memory" in controllers.split(","):
                yield from _limits(mounted / "memory", path, _read_v1)


def _limits(mounted: Path, path: str, read: Callable[[Path], Memory | None]) -> Iterator[Memory]:
    # Inside a container the path may be the host's and lead nowhere; its last resort is the mount itself.
    inner = mounted / path.lstrip("/")
    for folder in (inner, *inner.parents):
        if folder.is_relative_to(mounted) and (memory := read(folder)) is not None:
            yield memory


def _read_v2(folder: Path) -> Memory | None:
    return _memory(folder, limit="memory.max", usage="memory.current", cache="inactive_file")


def _read_v1(folder: Path) -> Memory | None:
    return _memory(
        folder, limit="memory.limit_in_bytes", usage="memory.usage_in_bytes", cache="total_inactive_file"
    )


def _memory(folder: Path, *, limit: str, usage: str, cache: str) -> Memory | None:
    most, used = _lines(folder / limit), _lines(folder / usage)
    if not most or not used or most[0] == "max":
        return None
    facts = dict(line.split(" ", 1) for line in _lines(folder / "memory.stat"))
    return Memory(limit=int(most[0]), used=max(0, int(used[0]) - int(facts.get(cache, 0))))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("ascii").splitlines()
    except OSError:
        return []
