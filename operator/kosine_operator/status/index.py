"""The status of a CosineIndex."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kosine_operator.pools import HANDOVER, pool_of, served_by
from kosine_operator.render.metadata import POOL_LABEL
from kosine_operator.status.conditions import ConditionType, Finding, conditions, false, settled, stamp, true
from kosine_operator.status.findings import (
    accepted,
    configuration_pending,
    load_reason,
    no_ready_pods,
    pods_unreachable,
    pool_trouble,
    rollout_pending,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kosine_operator.pools import Acceptance, Pool
    from kosine_operator.render import Rendered
    from kosine_operator.resources import CosineIndex, Previous
    from kosine_operator.status.observed import IndexReport, LoadFailure, Observed, PodReport

__all__ = ("index_status",)

_MESSAGE_CHARACTERS = 1024


def index_status(
    index: CosineIndex,
    *,
    pool: Pool | None,
    acceptance: Acceptance,
    rendered: Rendered | None,
    observed: Observed,
    previous: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The whole `status` of `index`; equal to `previous`, the stored one, where nothing changed.

    `pool` is the one it asks for; `pool` and `rendered` are None where there is nothing to serve it.
    """
    view = _View(index, pool, acceptance, rendered, observed, previous or {})
    meta = index.metadata
    given = {
        "observedGeneration": meta.generation,
        "url": f"http://{meta.name}.{meta.namespace}.svc/indexes/{meta.name}/cos",
        "selector": None if pool is None else f"{POOL_LABEL}={pool.key.label}",
        "replicas": observed.rollout.replicas,
        "readyReplicas": len(observed.ready),
        "loadedReplicas": len(view.answering),
        "loadedPods": f"{len(view.answering)}/{observed.rollout.desired}",
        **view.serving(),
        "loaded": view.loaded_version(),
        "lastFailure": view.last_failure(),
        "conditions": conditions(
            view.findings(), generation=meta.generation, now=observed.now, previous=previous
        ),
    }
    return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class _View:
    """One index as its pool shows it."""

    index: CosineIndex
    pool: Pool | None
    acceptance: Acceptance
    rendered: Rendered | None
    observed: Observed
    previous: Mapping[str, Any]

    def findings(self) -> dict[ConditionType, Finding]:
        taken = accepted(
            Finding(self.acceptance.accepted, self.acceptance.reason, self.acceptance.message),
            index=self.index.metadata.name,
            rendered=self.rendered,
            observed=self.observed,
        )
        available, loaded = self._available(), self._loaded(taken)
        return {
            ConditionType.ACCEPTED: taken,
            ConditionType.AVAILABLE: available,
            ConditionType.LOADED: loaded,
            ConditionType.PROGRESSING: self._progressing(taken, loaded),
            ConditionType.DEGRADED: self._degraded(),
            ConditionType.READY: self._ready(taken, loaded),
        }

    @property
    def reports(self) -> list[tuple[PodReport, IndexReport]]:
        """What every pod that can be asked says of it."""
        name = self.index.metadata.name
        return [(pod, pod.indexes[name]) for pod in self.observed.pods if name in pod.indexes]

    @property
    def answering(self) -> list[IndexReport]:
        """Of the pods that Services lead to."""
        return [report for pod, report in self.reports if pod.ready and report.answers]

    @property
    def moving(self) -> bool:
        """Whether another pool still answers for it."""
        return served_by(self.index) not in {None, pool_of(self.index)}

    def _failures(self) -> list[tuple[PodReport, IndexReport, LoadFailure]]:
        return [
            (pod, report, report.last_error) for pod, report in self.reports if report.last_error is not None
        ]

    def _available(self) -> Finding:
        ready, count = len(self.observed.ready), len(self.answering)
        unknown = self.moving or (not count and pods_unreachable(self.observed))
        if unknown and (kept := self._kept(ConditionType.AVAILABLE)) is not None:
            # Pods that could not be looked at may answer for it as before.
            return kept
        if count:
            return true("Serving", f"{count} of {ready} ready pods answer")
        return no_ready_pods(self.observed) or false("NotLoaded", f"none of {ready} ready pods has loaded it")

    def _loaded(self, taken: Finding) -> Finding:
        if not taken.holds and not self.answering:
            return false("NotAccepted", taken.message)
        for pod, report, failure in self._failures():
            if not report.loaded:
                return false(load_reason(failure), f"{pod.pod}: {failure.detail}")
        unknown = no_ready_pods(self.observed) or pods_unreachable(self.observed)
        if unknown is not None:
            return unknown
        if self.rendered is not None and not self._settled() and self._pending(self.rendered):
            return false("ConfigurationPending", self._pending(self.rendered))
        ready = self.observed.ready
        done = [report for pod, report in self.reports if pod.ready and report.loaded]
        if len(done) < len(ready):
            return false("Loading", f"{len(done)} of {len(ready)} ready pods have loaded it")
        return true("Loaded", f"all {len(ready)} ready pods have loaded it")

    def _settled(self) -> bool:
        """Whether this generation has been confirmed before.

        A configuration that changes for another index of the pool says nothing new about this one.
        """
        return settled(ConditionType.LOADED, self.previous, generation=self.index.metadata.generation)

    def _pending(self, rendered: Rendered) -> str:
        pending = configuration_pending(rendered, self.observed)
        return "" if pending is None else pending.message

    def _progressing(self, taken: Finding, loaded: Finding) -> Finding:
        if self.index.spec.paused or (self.pool is not None and self.pool.paused):
            return false("Paused", "nothing is changed while spec.paused is true")
        if not taken.holds:
            return false("NotAccepted", taken.message)
        if self.moving:
            return true("Moving", f"to {pool_of(self.index).name}: {loaded.message}")
        if (rollout := rollout_pending(self.observed)) is not None:
            return rollout
        if loaded.reason == "ConfigurationPending":
            return true("HotReload", loaded.message)
        if loaded.reason == "Loading":
            return true("Loading", loaded.message)
        return false("Settled", "nothing is left to do")

    def _degraded(self) -> Finding:
        for pod, report, failure in self._failures():
            reason = "ServingStaleVersion" if report.answers else load_reason(failure)
            return true(reason, f"{pod.pod}: {failure.code}: {failure.detail}")
        calm = false("AsExpected", "nothing needs attention")
        return pool_trouble(self.rendered, self.observed) or calm

    def _ready(self, taken: Finding, loaded: Finding) -> Finding:
        if not taken.holds:
            return taken
        if self.observed.rollout.observed and self.observed.rollout.desired == 0:
            return false("ScaledToZero", "there are no pods, as asked for")
        if not loaded.holds:
            return loaded
        if self.moving:
            return false("Moving", f"to {pool_of(self.index).name}: {loaded.message}")
        rollout = rollout_pending(self.observed)
        if self.index.spec.server_ref is None and rollout is not None:
            # The pods of a server are its own matter; here they are part of this generation.
            return false("Rollout", rollout.message)
        return true("Ready", loaded.message)

    def _kept(self, kind: ConditionType) -> Finding | None:
        for condition in self.previous.get("conditions") or ():
            if condition["type"] == kind:
                return Finding(condition["status"] == "True", condition["reason"], condition["message"])
        return None

    def serving(self) -> dict[str, Any]:
        """Whose pods its Service leads to, and who is to keep it a little longer."""
        serving, previous = served_by(self.index), self.index.status.previous
        given: dict[str, Any] = {}
        if previous is not None and (previous.until is None or self.observed.now < previous.until):
            given["previous"] = {"kind": previous.kind, "name": previous.name, **self._until(previous)}
        if self._arrives():
            asked = pool_of(self.index)
            given["serving"] = {"kind": asked.kind, "name": asked.name}
            if serving is not None and serving != asked:
                given["previous"] = {"kind": serving.kind, "name": serving.name}
        elif serving is not None:
            given["serving"] = {"kind": serving.kind, "name": serving.name}
        return given

    def _until(self, previous: Previous) -> dict[str, str]:
        """How long the old pool keeps it; the time begins when its Service has been seen to lead here."""
        if previous.until is not None:
            return {"until": stamp(previous.until)}
        turned = not self.moving and self.index.metadata.name in self.observed.led_here
        return {"until": stamp(self.observed.now + HANDOVER)} if turned else {}

    def _arrives(self) -> bool:
        """Whether its Service may lead to the pool it asks for."""
        if self.pool is None or not self.acceptance.accepted:
            return False
        if not self.moving:
            return True
        ready = self.observed.ready
        loaded = [report for pod, report in self.reports if pod.ready and report.loaded]
        return bool(ready) and len(loaded) == len(ready)

    def loaded_version(self) -> dict[str, Any] | None:
        """The newest version that answers."""
        found = [
            {
                "version": report.version,
                "rows": report.rows,
                "dim": report.dim,
                "bytes": report.bytes,
                "time": stamp(report.loaded_at),
            }
            for _, report in self.reports
            if report.answers and report.loaded_at is not None
        ]
        kept = self.previous.get("loaded") if self.moving or pods_unreachable(self.observed) else None
        return max(found, key=lambda version: (version["time"], version["version"]), default=kept)

    def last_failure(self) -> dict[str, Any] | None:
        """The newest failure; one that only happened again keeps its time, or each retry would be a write."""
        failures = self._failures()
        if not failures:
            return None
        told = [
            {
                "reason": failure.code,
                "message": failure.detail[:_MESSAGE_CHARACTERS],
                "pod": pod.pod,
                "time": stamp(failure.at),
            }
            for pod, _, failure in failures
        ]
        before = self.previous.get("lastFailure") or {}
        for failure in told:
            if before == {**failure, "time": before.get("time")}:
                return dict(before)
        return max(told, key=lambda failure: (failure["time"], failure["pod"]))
