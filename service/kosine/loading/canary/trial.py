"""The canary of one load: what the header tells is checked first, the rest on the engine that was built."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from kosine.errors import Stage
from kosine.loading.canary.candidate import Candidate
from kosine.loading.canary.checks import (
    Found,
    golden_check,
    overlap_check,
    overlap_of,
    refuse_failed,
    row_drift_check,
)
from kosine.loading.canary.golden import read_golden
from kosine.serving.status import CanaryReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kosine.engines.engine import Engine
    from kosine.loading.canary.checks import Overlap
    from kosine.loading.canary.golden import Golden
    from kosine.loading.canary.live import LiveVersion
    from kosine.loading.job import LoadJob
    from kosine.loading.source import Storage
    from kosine.serving.item_ids import ItemIds
    from kosine.serving.status import CanaryCheck

__all__ = ("Trial",)

_DRAWN = 4
"""Times as many items are drawn as are compared: some of them are gone."""


class Trial:
    """Call `gate` with the header, then `run` with the engine. Both block; a `proven` job passes."""

    def __init__(self, job: LoadJob, storage: Storage) -> None:
        self._job = job
        self._storage = storage
        self._settings = job.settings.canary
        self._golden: Golden | None = None

    def gate(self, *, rows: int, dim: int, texts: bool) -> None:
        """LoadError `bad_golden` or `canary_failed` at GATE; `texts`: whether ids are texts."""
        settings = self._job.settings
        if self._job.proven:
            return
        if (uri := self._settings.golden) is not None:
            storage = self._storage.using(settings.credentials)
            golden = read_golden(storage, uri, k=settings.k, metric=settings.metric)
            golden.check_fits(dim=dim, texts=texts, max_k=settings.max_k)
            self._golden = golden
        drift = self._row_drift(rows)
        if any(check.outcome == "failed" for check in drift):
            self._judge(drift, version=None, stage=Stage.GATE)

    def run(self, engine: Engine, ids: ItemIds, *, version: str) -> None:
        """Check all that is asked for, tell what came, then refuse: LoadError `canary_failed` at CANARY.

        `version` (hex digits) also draws the sample, so every replica and every try compares the same items.
        """
        if self._job.proven:
            return
        new = Candidate(engine, ids, cancelled=self._job.cancelled)
        checks = self._row_drift(engine.rows)
        if self._golden is not None:
            checks.append(golden_check(_found(self._golden, new)))
        if (least := self._settings.min_overlap_percent) is not None:
            live = self._job.live
            overlap = self._overlap(live, new, seed=int(version, 16)) if live is not None else None
            checks.append(overlap_check(overlap, least=least))
        if checks:
            self._judge(checks, version=version, stage=Stage.CANARY)

    def _judge(self, checks: Sequence[CanaryCheck], *, version: str | None, stage: Stage) -> None:
        self._job.judged(CanaryReport(version=version, at=datetime.now(UTC), checks=tuple(checks)))
        refuse_failed(checks, stage=stage)

    def _row_drift(self, rows: int) -> list[CanaryCheck]:
        if (most := self._settings.max_row_drift_percent) is None:
            return []
        served = self._job.served
        return [row_drift_check(rows=rows, served=served.rows if served is not None else None, most=most)]

    def _overlap(self, live: LiveVersion, new: Candidate, *, seed: int) -> Overlap:
        k = min(self._settings.overlap_k, live.max_k, new.max_k)
        # Twice as deep as is compared: what only one of the versions holds is left out.
        depth = min(2 * k, live.max_k, new.max_k)
        drawn = _drawn(live.rows, self._settings.overlap_sample * _DRAWN, seed=seed)
        there = _rows_of(live.ids.names(drawn), new.ids, like=live.ids)
        both = np.flatnonzero(there >= 0)[: self._settings.overlap_sample]
        theirs = live.neighbours(drawn[both].tolist(), depth)
        ours = new.neighbours(there[both].tolist(), depth)
        return overlap_of(
            (
                (_held(old, new.ids, like=live.ids), _held(now, live.ids, like=new.ids))
                for old, now in zip(theirs, ours, strict=True)
            ),
            k,
        )


def _found(golden: Golden, new: Candidate) -> list[Found]:
    return [
        Found(
            number=number,
            least=query.min_found,
            expected=len(query.expected),
            missed=tuple(each for each in query.expected if each not in (names or ())),
            unknown=names is None,
        )
        for number, (query, names) in enumerate(zip(golden.queries, new.answers(golden.queries), strict=True))
    ]


def _drawn(rows: int, count: int, *, seed: int) -> NDArray[np.int32]:
    """Up to `count` row numbers of `rows`, in random order."""
    chosen = np.random.default_rng(seed).choice(rows, size=min(rows, count), replace=False)
    return chosen.astype(np.int32)


def _rows_of(names: list[Any], ids: ItemIds, *, like: ItemIds) -> NDArray[np.int32]:
    """Where `ids` hold these names, which come from `like`; -1: nowhere."""
    if ids.are_text is not like.are_text:
        return np.full(len(names), -1, np.int32)
    return ids.find(names, field="id")


def _held(names: list[Any], ids: ItemIds, *, like: ItemIds) -> list[Any]:
    """Those of the names that `ids` hold, too."""
    rows = _rows_of(names, ids, like=like)
    return [name for name, row in zip(names, rows.tolist(), strict=True) if row >= 0]
