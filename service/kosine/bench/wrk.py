"""The closed loop by wrk, where it is installed: a client in C takes less of the machine than one in Python.

wrk keeps no answers, so they are checked by our own client, before and after. It leaves what is in flight at
the end unanswered, and knows no intended send time: for an open loop it is no use.
"""

from __future__ import annotations

import math
import resource
import shutil
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from kosine.bench.percentiles import Percentiles, percentiles_of_counts
from kosine.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


__all__ = ("Wrk", "WrkResult")

Requests = list[tuple[str, bytes]]

_MICROSECOND = 1e-6
_TIMING_STEP = 1e-5
"""Server-Timing is kept to ten microseconds."""

_GRACE = 60.0
_SHOWN = 500

_SCRIPT = """\
local requests, order, turn = {}, {}, 0
queue, engine, statuses = {}, {}, {}

function init(args)
  for line in io.lines(args[1]) do
    local path, body = line:match("^(%S+) (.*)$")
    requests[#requests + 1] = wrk.format("POST", path, {["Content-Type"] = "application/json"}, body)
  end
  for line in io.lines(args[2]) do order[#order + 1] = tonumber(line) + 1 end
end

function request()
  turn = turn % #order + 1
  return requests[order[turn]]
end

local function count(counts, name, timing)
  local milliseconds = timing:match(name .. ";dur=([%d.]+)")
  if milliseconds then
    local step = math.floor(milliseconds * 100 + 0.5)
    counts[step] = (counts[step] or 0) + 1
  end
end

function response(status, headers, body)
  if status ~= 200 then
    local what = status .. " " .. (body:match('"code"%s*:%s*"([%w_]+)"') or "")
    statuses[what] = (statuses[what] or 0) + 1
    return
  end
  local timing = headers["server-timing"] or headers["Server-Timing"]
  if timing then
    count(queue, "queue", timing)
    count(engine, "engine", timing)
  end
end

local thread
function setup(created) thread = created end

local function object(counts)
  local parts = {}
  for key, value in pairs(counts) do parts[#parts + 1] = string.format('"%s":%d', key, value) end
  return "{" .. table.concat(parts, ",") .. "}"
end

function done(summary, latency)
  local seen = {}
  for i = 1, #latency do
    local value, times = latency(i)
    seen[i] = string.format('"%d":%d', value, times)
  end
  local errors = summary.errors
  io.write("\\n", string.format(
    '{"microseconds":%d,"requests":%d,"latency":{%s},"queue":%s,"engine":%s,"statuses":%s,' ..
    '"connect":%d,"read":%d,"write":%d,"timeout":%d}\\n',
    summary.duration, summary.requests, table.concat(seen, ","), object(thread:get("queue")),
    object(thread:get("engine")), object(thread:get("statuses")),
    errors.connect, errors.read, errors.write, errors.timeout))
end
"""


class _Output(msgspec.Struct, frozen=True):
    microseconds: int
    requests: int
    latency: dict[int, int]
    queue: dict[int, int]
    engine: dict[int, int]
    statuses: dict[str, int]
    connect: int
    read: int
    write: int
    timeout: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WrkResult:
    """One load by wrk."""

    seconds: float
    answered: int
    failures: dict[str, int]
    total: Percentiles | None
    queue: Percentiles | None
    engine: Percentiles | None
    cpu_seconds: float


class Wrk:
    """wrk with a script of its own in `folder`, which asks as the load process would."""

    def __init__(self, path: str, folder: Path, *, requests: Requests, order: Sequence[int]) -> None:
        """`requests` are path and body of each; they are asked in that `order`, again and again."""
        self._path = path
        self._script = folder / "load.lua"
        self._bodies = folder / "bodies.txt"
        self._order = folder / "order.txt"
        self._requests = requests
        self._numbers = order

    @staticmethod
    def find() -> str | None:
        """Where wrk is installed."""
        return shutil.which("wrk")

    def run(
        self,
        url: str,
        *,
        connections: int,
        seconds: float,
        timeout: float,
        started: Callable[[float], None],
    ) -> WrkResult:
        """One load of whole seconds on the server of `url`; blocks. Raises StartupError where wrk fails."""
        self._write()
        command = [
            *(self._path, "--threads=1", f"--connections={connections}", f"--script={self._script}"),
            *(f"--duration={math.ceil(seconds)}s", f"--timeout={math.ceil(timeout)}s", url, "--"),
            *(str(self._bodies), str(self._order)),
        ]
        before, begun = _children_seconds(), time.monotonic()
        started(begun)
        done = subprocess.run(  # noqa: S603  the wrk that is installed, files of ours
            command, capture_output=True, text=True, timeout=seconds + timeout + _GRACE, check=False
        )
        try:
            output = msgspec.json.decode(done.stdout.rstrip().rpartition("\n")[2], type=_Output)
        except msgspec.DecodeError:
            took, said = time.monotonic() - begun, (done.stderr or done.stdout).strip()[-_SHOWN:]
            raise StartupError(f"wrk ended with {done.returncode} after {took:.1f} s: {said}") from None
        return _result(output, cpu_seconds=_children_seconds() - before)

    def _write(self) -> None:
        if self._script.exists():
            return
        with self._bodies.open("wb") as file:
            file.writelines(path.encode("ascii") + b" " + body + b"\n" for path, body in self._requests)
        self._order.write_text("".join(f"{number}\n" for number in self._numbers), encoding="ascii")
        self._script.write_text(_SCRIPT, encoding="ascii")


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _result(output: _Output, *, cpu_seconds: float) -> WrkResult:
    failures = {name.strip(): times for name, times in output.statuses.items()}
    sockets = {
        "connect": output.connect,
        "read": output.read,
        "write": output.write,
        "timeout": output.timeout,
    }
    failures |= {f"wrk_{name}": times for name, times in sockets.items() if times}
    return WrkResult(
        seconds=output.microseconds * _MICROSECOND,
        answered=output.requests - sum(output.statuses.values()),
        failures=failures,
        total=_percentiles(output.latency, _MICROSECOND),
        queue=_percentiles(output.queue, _TIMING_STEP),
        engine=_percentiles(output.engine, _TIMING_STEP),
        cpu_seconds=cpu_seconds,
    )


def _percentiles(counts: dict[int, int], step: float) -> Percentiles | None:
    values = np.array(list(counts), dtype=np.float64) * step
    return percentiles_of_counts(values, np.array(list(counts.values()), dtype=np.int64))
