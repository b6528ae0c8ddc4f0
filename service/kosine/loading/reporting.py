"""Tells registry, metrics and log the same story about the loads of one index."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from kosine.serving.status import LoadFailure, LoadStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from kosine.errors import LoadError, Stage
    from kosine.metrics import Metrics
    from kosine.serving.masks import Masks
    from kosine.serving.registry import Registry
    from kosine.serving.status import CanaryReport, Pin, ServedVersion, VersionInfo

__all__ = ("Reporter",)

_PROGRESS_EVERY = 5.0


class Reporter:
    """Use it on the event loop. A failure stays in the status until a load is good again."""

    def __init__(
        self,
        name: str,
        *,
        registry: Registry,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._registry = registry
        self._metrics = metrics
        self._log = structlog.get_logger(__name__).bind(index=name)
        self._status = LoadStatus()
        self._clock = clock
        self._progress_at: float | None = None
        """When progress is told next; None between loads."""

    @property
    def failure(self) -> LoadFailure | None:
        """The last failed load since the last good one."""
        return self._status.last_error

    def outdated(self) -> None:
        """Settings are in force that the version that serves does not satisfy."""
        self._note(outdated=True)

    def looked(self) -> None:
        """The source is being looked at."""
        self._note(checked_at=datetime.now(UTC))

    def progressed(self, stage: Stage, done: int, total: int) -> None:
        """A load is at `stage`, with `done` of `total` bytes read; the log tells of a long one as it goes."""
        now = self._clock()
        if self._progress_at is None:
            self._progress_at = now + _PROGRESS_EVERY
        elif now >= self._progress_at:
            self._progress_at = now + _PROGRESS_EVERY
            self._log.info("reload_progress", stage=stage.value, bytes_read=done, bytes_total=total)
        self._note(stage=stage, bytes_read=done, bytes_total=total)

    def judged(self, report: CanaryReport) -> None:
        """The canary of a load found this."""
        for check in report.checks:
            self._metrics.canary(self._name, check.name, check.outcome)
        self._log.info(
            "canary_checked",
            version=report.version,
            checks=[asdict(check) for check in report.checks],
        )
        self._note(canary=report)

    def published(self, info: VersionInfo, *, seconds: float, stale: bool) -> None:
        """A new version serves; a `stale` one is of a local copy that the store has not confirmed."""
        self._metrics.reload(self._name, "published", "", seconds)
        self._log.info(
            "reload_published",
            version=info.version,
            rows=info.rows,
            dim=info.dim,
            bytes=info.bytes,
            seconds=round(seconds, 3),
            stale=stale,
        )
        self._rest(last_error=None, stale=stale, outdated=False)

    def masks_published(self, masks: Masks, *, seconds: float) -> None:
        """The version that serves has other masks."""
        self._metrics.reload(self._name, "masks_published", "", seconds)
        self._log.info(
            "masks_published",
            masks={name: mask.short_digest for name, mask in masks.named.items()},
            true={name: mask.true for name, mask in masks.named.items()},
            seconds=round(seconds, 3),
        )
        self.confirmed()
        self._rest(last_error=None)

    def kept(self, versions: tuple[ServedVersion, ...], pin: Pin | None) -> None:
        """What served, the present version first, and what is pinned."""
        waits = self._status.waits and pin is not None and versions == self._status.history
        self._note(history=versions, pin=pin, waits=waits)

    def waits(self) -> None:
        """The source holds something else than the pinned version."""
        if not self._status.waits:
            self._log.info("index_held", version=self._status.pin.version if self._status.pin else None)
            self._note(waits=True)

    def not_gone_back(self, version: str, error: LoadError, *, seconds: float) -> None:
        """An earlier version could not be loaded; what serves is as it was."""
        self._metrics.reload(self._name, "failed", error.stage.value, seconds)
        self._log.warning(
            "rollback_failed",
            version=version,
            code=error.code.value,
            stage=error.stage.value,
            detail=error.detail,
        )
        self._rest()

    def confirmed(self) -> None:
        """The store holds what serves."""
        if self._status.waits:
            self._note(waits=False)
        if self._status.stale:
            self._log.info("copy_confirmed")
            self._note(stale=False)

    def unchanged(self, *, seconds: float) -> None:
        """The source was read again and holds what serves."""
        self._metrics.reload(self._name, "unchanged", "", seconds)
        self._log.debug("reload_unchanged", seconds=round(seconds, 3))
        self.confirmed()
        self._rest(last_error=None)

    def recovered(self) -> None:
        """The source looks again as it did when it was loaded."""
        self._rest(last_error=None)

    def called_off(self) -> None:
        """The load ended without an outcome."""
        self._rest()

    def failed(self, error: LoadError, *, seconds: float) -> LoadFailure:
        """A load, or the look before it, failed; a repetition of the same failure is logged at debug."""
        before = self._status.last_error
        failure = LoadFailure(
            code=error.code,
            stage=error.stage,
            detail=error.detail,
            at=datetime.now(UTC),
            consecutive=before.consecutive + 1 if before is not None else 1,
            facts=error.facts,
        )
        self._metrics.reload(self._name, "failed", error.stage.value, seconds)
        again = before is not None and (before.code, before.stage) == (error.code, error.stage)
        (self._log.debug if again else self._log.warning)(
            "reload_failed",
            code=error.code.value,
            stage=error.stage.value,
            detail=error.detail,
            consecutive=failure.consecutive,
            seconds=round(seconds, 3),
        )
        self._rest(last_error=failure)
        return failure

    def _rest(self, **changes: Any) -> None:
        self._progress_at = None
        self._note(stage=None, bytes_read=0, bytes_total=0, **changes)

    def _note(self, **changes: Any) -> None:
        self._status = replace(self._status, **changes)
        self._registry.note(self._name, self._status)
