"""The service around a load: what it counted, and the CPU it took, between begin and end."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import psutil

from kosine.bench.counters import difference
from kosine.bench.report import CpuReport
from kosine.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Collection

    from kosine.bench.counters import ServerCounters
    from kosine.bench.endpoint import Endpoint

__all__ = ("Observation", "cpu_report")

_PER = 1000


class Observation:
    """Of one load. The counters are read while nothing of ours is under way."""

    def __init__(self, endpoint: Endpoint, pid: int | None, indexes: Collection[str]) -> None:
        self._endpoint = endpoint
        self._pid = pid
        self._indexes = indexes
        self._before = endpoint.scrape()
        self._cpu_at_start: float | None = None
        self._cpu: float | None = None
        self._seconds = 0.0
        self.start = 0.0
        """Of the load, on the monotonic clock."""

    def begin(self, at: float) -> None:
        """The load begins at that time."""
        self.start = at
        self._cpu_at_start = _cpu_seconds(self._pid)

    def end(self) -> None:
        """The last answer has come."""
        self._seconds = monotonic() - self.start
        after = _cpu_seconds(self._pid)
        if after is not None and self._cpu_at_start is not None:
            self._cpu = after - self._cpu_at_start

    def counters(self) -> ServerCounters | None:
        """What was counted since this was made; None where the service does not tell or was restarted."""
        after = self._endpoint.scrape()
        if self._before is None or after is None:
            return None
        return difference(self._before, after, self._indexes)

    def server_cpu(self, answered: int) -> CpuReport | None:
        """None where the process is not known."""
        return None if self._cpu is None else cpu_report(self._cpu, self._seconds, answered)


def cpu_report(spent: float, seconds: float, answered: int) -> CpuReport:
    """`spent` CPU seconds in `seconds`, for so many answers."""
    return CpuReport(
        seconds=round(spent, 4),
        cores=round(spent / seconds, 4),
        seconds_per_1000=round(spent * _PER / answered, 5) if answered else None,
    )


def _cpu_seconds(pid: int | None) -> float | None:
    if pid is None:
        return None
    try:
        process = psutil.Process(pid)
        times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    except psutil.NoSuchProcess:
        raise StartupError(f"process {pid} of the service is gone") from None
    except psutil.Error as error:
        raise StartupError(f"cannot read the CPU time of process {pid}: {error}") from error
    return sum(each.user + each.system for each in times)
