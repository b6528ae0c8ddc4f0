"""The status of a CosineServer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kosine_operator.pools import pool_of
from kosine_operator.render.metadata import POOL_LABEL
from kosine_operator.status.conditions import ConditionType, Finding, conditions, false, true
from kosine_operator.status.findings import (
    accepted,
    configuration_pending,
    listed,
    no_ready_pods,
    pool_trouble,
    rollout_pending,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kosine_operator.pools import Pool
    from kosine_operator.render import Rendered
    from kosine_operator.resources import CosineServer
    from kosine_operator.status.observed import Observed

__all__ = ("server_status",)


def server_status(
    server: CosineServer,
    *,
    pool: Pool,
    rendered: Rendered | None,
    observed: Observed,
    previous: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The whole `status` of `server`; equal to `previous` where nothing changed.

    A broken index is `Loaded=False` and `Degraded=True` here, and still `Ready=True`: the others are served.
    """
    view = _View(server, pool, rendered, observed)
    meta = server.metadata
    given = {
        "observedGeneration": meta.generation,
        "selector": f"{POOL_LABEL}={pool.key.label}",
        "replicas": observed.rollout.replicas,
        "readyReplicas": len(observed.ready),
        "indexes": len(view.names),
        "loadedIndexes": f"{len(view.names) - len(view.missing)}/{len(view.names)}",
        "configurationHash": None if rendered is None else rendered.configuration_hash,
        "conditions": conditions(
            view.findings(), generation=meta.generation, now=observed.now, previous=previous
        ),
    }
    return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class _View:
    """A server as its pods show it."""

    server: CosineServer
    pool: Pool
    rendered: Rendered | None
    observed: Observed

    def findings(self) -> dict[ConditionType, Finding]:
        taken = accepted(self._taken(), index=None, rendered=self.rendered, observed=self.observed)
        available = no_ready_pods(self.observed)
        ready = len(self.observed.ready)
        return {
            ConditionType.ACCEPTED: taken,
            ConditionType.AVAILABLE: available or true("Serving", f"{ready} pods are ready"),
            ConditionType.LOADED: self._loaded(),
            ConditionType.PROGRESSING: self._progressing(taken),
            ConditionType.DEGRADED: self._degraded(),
            ConditionType.READY: self._ready(taken),
        }

    @property
    def names(self) -> list[str]:
        """The indexes that are its own; those that are moving away no longer are."""
        return [index.metadata.name for index in self.pool.indexes if pool_of(index) == self.pool.key]

    @property
    def missing(self) -> list[str]:
        """Those that not every ready pod has loaded."""
        ready = self.observed.ready
        return [
            name
            for name in self.names
            if not ready or not all(name in pod.indexes and pod.indexes[name].loaded for pod in ready)
        ]

    def _taken(self) -> Finding:
        for refusal in self.pool.refusals:
            if refusal.index is None:
                return false(refusal.reason, refusal.message)
        return true("Accepted", f"serves {len(self.names)} indexes")

    def _loaded(self) -> Finding:
        if not self.names:
            return true("NoIndexes", "no CosineIndex names this server")
        if (nobody := no_ready_pods(self.observed)) is not None:
            return nobody
        if self.missing:
            count = len(self.names)
            told = f"{count - len(self.missing)} of {count} indexes are loaded by all ready pods"
            return false("Loading", f"{told}; missing{listed(self.missing)}")
        return true("Loaded", f"all {len(self.names)} indexes are loaded by all ready pods")

    def _progressing(self, taken: Finding) -> Finding:
        if self.server.spec.paused:
            return false("Paused", "nothing is changed while spec.paused is true")
        if not taken.holds:
            return false("NotAccepted", taken.message)
        calm = false("Settled", "nothing is left to do")
        pending = configuration_pending(self.rendered, self.observed) if self.rendered is not None else None
        return rollout_pending(self.observed) or pending or calm

    def _degraded(self) -> Finding:
        failing = sorted(
            {
                name
                for pod in self.observed.pods
                for name, report in pod.indexes.items()
                if name in self.names and report.last_error is not None
            }
        )
        trouble = pool_trouble(self.rendered, self.observed)
        if trouble is None and failing:
            told = f"{len(failing)} of {len(self.names)} indexes failed to load{listed(failing)}"
            return true("IndexesDegraded", told)
        return trouble or false("AsExpected", "nothing needs attention")

    def _ready(self, taken: Finding) -> Finding:
        if not taken.holds:
            return taken
        rollout = self.observed.rollout
        if rollout.observed and rollout.desired == 0:
            return false("ScaledToZero", "there are no pods, as asked for")
        if (nobody := no_ready_pods(self.observed)) is not None:
            return nobody
        if (pending := rollout_pending(self.observed)) is not None:
            return false("Rollout", pending.message)
        late = configuration_pending(self.rendered, self.observed) if self.rendered is not None else None
        if late is not None:
            return false("ConfigurationPending", late.message)
        return true("Ready", f"all {len(self.observed.ready)} pods have the configuration in force")
