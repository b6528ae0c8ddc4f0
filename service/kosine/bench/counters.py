"""What the service counted while a load ran: the difference of two scrapes of its /metrics."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ("Bucket", "Scrape", "ServerCounters", "difference", "read_exposition")

_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? ([^ ]+)(?: [0-9.]+)?")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Series = tuple[str, tuple[tuple[str, str], ...]]
Scrape = dict[Series, float]
"""Value by metric name and its labels in alphabetical order."""


class Bucket(Struct, frozen=True, kw_only=True):
    """Engine calls of more than `above` and at most `up_to` rows; null: without limit."""

    above: int
    up_to: int | None
    batches: int


class ServerCounters(Struct, frozen=True, kw_only=True):
    """What the service counted between two scrapes, over the indexes that were asked."""

    requests: dict[str, int]
    """By outcome: ok, abandoned or an error's code."""
    batches: dict[str, int]
    """By the reason the batch was formed; see docs/batching.md."""
    batch_rows: list[Bucket]
    mean_batch_rows: float | None
    dropped: dict[str, int]


def read_exposition(text: str) -> Scrape:
    """The samples of Prometheus text; what is no sample is skipped.

    >>> read_exposition('a_total{index="items"} 3.0')
    {('a_total', (('index', 'items'),)): 3.0}
    """
    scrape: Scrape = {}
    for line in text.splitlines():
        found = _SAMPLE.fullmatch(line)
        if found is not None and not line.startswith("#"):
            labels = tuple(sorted(_LABEL.findall(found[2] or "")))
            scrape[found[1], labels] = float(found[3])
    return scrape


def difference(before: Scrape, after: Scrape, indexes: Collection[str]) -> ServerCounters | None:
    """What was counted for `indexes`; None where a counter went back, because the service was restarted."""
    grown = _growth(before, after, indexes)
    if any(value < 0 for value in grown.values()):
        return None
    rows, calls = _sum(grown, "kosine_batch_rows_sum"), _sum(grown, "kosine_batch_rows_count")
    return ServerCounters(
        requests=_by(grown, "kosine_requests_total", "outcome"),
        batches=_by(grown, "kosine_batches_total", "reason"),
        batch_rows=_buckets(grown, "kosine_batch_rows_bucket"),
        mean_batch_rows=round(rows / calls, 3) if calls else None,
        dropped=_by(grown, "kosine_dropped_queries_total", "why"),
    )


def _growth(before: Scrape, after: Scrape, indexes: Collection[str]) -> Scrape:
    return {
        (name, labels): value - before.get((name, labels), 0.0)
        for (name, labels), value in after.items()
        if dict(labels).get("index") in indexes and name.endswith(("_total", "_bucket", "_sum", "_count"))
    }


def _by(grown: Scrape, name: str, label: str) -> dict[str, int]:
    found: defaultdict[str, int] = defaultdict(int)
    for (metric, labels), value in grown.items():
        if metric == name and value:
            found[dict(labels)[label]] += round(value)
    return dict(sorted(found.items()))


def _sum(grown: Mapping[Series, float], name: str) -> float:
    return sum(value for (metric, _), value in grown.items() if metric == name)


def _buckets(grown: Scrape, name: str) -> list[Bucket]:
    cumulative: defaultdict[float, int] = defaultdict(int)
    for (metric, labels), value in grown.items():
        if metric == name:
            cumulative[float(dict(labels)["le"])] += round(value)
    found: list[Bucket] = []
    below, above = 0, 0.0
    for limit, reached in sorted(cumulative.items()):
        if reached > below:
            up_to = None if limit == float("inf") else int(limit)
            found.append(Bucket(above=int(above), up_to=up_to, batches=reached - below))
        below, above = reached, limit
    return found
