"""What filters cost: plain and filtered loads that ran in turn, compared round by round.

Two loads of one round ran one after the other, and which came first changes from round to round. So what
drifts on the machine cancels out, where two runs of the bench would have it in their difference.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from msgspec import Struct

from kosine.bench.report import ComparisonReport, Ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kosine.bench.report import PointReport

__all__ = ("compare",)

_DIGITS = 4


class _Round(Struct):
    plain: PointReport
    filtered: PointReport

    def ratio(self, value: Callable[[PointReport], float | None]) -> float | None:
        plain, filtered = value(self.plain), value(self.filtered)
        return filtered / plain if plain and filtered is not None else None


def compare(points: Sequence[PointReport], *, rounds: int) -> list[ComparisonReport]:
    """Of each load that was run plain and filtered in `rounds`, pair after pair."""
    pairs = list(_rounds(points))
    return [_compared(pairs[start : start + rounds]) for start in range(0, len(pairs), rounds)]


def _rounds(points: Sequence[PointReport]) -> Iterator[_Round]:
    for first, second in zip(points[::2], points[1::2], strict=True):
        plain, filtered = (second, first) if first.filtered else (first, second)
        yield _Round(plain, filtered)


def _compared(rounds: Sequence[_Round]) -> ComparisonReport:
    load = rounds[0].plain
    return ComparisonReport(
        mode=load.mode,
        connections=load.connections,
        rate=load.rate,
        rounds=len(rounds),
        throughput_ratio=_ratio(rounds, lambda point: point.throughput) if load.rate is None else None,
        p50_ratio=_ratio(rounds, lambda point: point.total.p50 if point.total else None),
        server_cpu_ratio=_ratio(rounds, _server_cpu),
    )


def _server_cpu(point: PointReport) -> float | None:
    return None if point.server_cpu is None else point.server_cpu.seconds_per_1000


def _ratio(rounds: Sequence[_Round], value: Callable[[PointReport], float | None]) -> Ratio | None:
    """None where one of them is not known."""
    found = [each.ratio(value) for each in rounds]
    known = [ratio for ratio in found if ratio is not None]
    if len(known) < len(found):
        return None
    return Ratio(
        median=round(median(known), _DIGITS),
        least=round(min(known), _DIGITS),
        most=round(max(known), _DIGITS),
    )
