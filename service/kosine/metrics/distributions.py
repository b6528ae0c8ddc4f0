"""Histograms of what happens to every query, by index: counted on the event loop, read when Prometheus asks.

The histograms of prometheus_client take two locks an observation, of which a query makes two: a twentieth of
what the service itself does for it. Here it is an addition; nobody but the loop adds.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client.core import Metric

__all__ = ("Distribution", "DistributionFamily")


class Distribution:
    """One series. Not thread-safe, but for reading."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` ascend; a value counts in the first bucket whose bound is not less."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def read(self) -> tuple[list[int], float]:
        """How many there are up to each bound and in all, and their sum; it may be one value ahead."""
        return list(accumulate(self._counts)), self._sum


class DistributionFamily(Collector):
    """A histogram with the label `index`."""

    def __init__(self, name: str, meaning: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._meaning = meaning
        self._bounds = tuple(bounds)
        self._limits = [*map(floatToGoString, bounds), "+Inf"]
        self._series: dict[str, Distribution] = {}

    def of(self, index: str) -> Distribution:
        """The series of one index."""
        return self._series.setdefault(index, Distribution(self._bounds))

    def forget(self, index: str) -> None:
        """Drop the series of an index."""
        self._series.pop(index, None)

    def describe(self) -> Iterable[Metric]:
        """The name without values."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        """Every series as it is."""
        family = self._family()
        for index, series in tuple(self._series.items()):
            counts, total = series.read()
            family.add_metric([index], list(zip(self._limits, counts, strict=True)), total)
        return [family]

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._meaning, labels=("index",))
