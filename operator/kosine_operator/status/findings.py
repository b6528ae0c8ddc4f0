"""What an index and a server have in common: their pool's rollout, its configuration and its failures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kosine_operator.status.conditions import LOAD_REASONS, Finding, false, true

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kosine_operator.render import Rendered
    from kosine_operator.status.observed import LoadFailure, Observed

__all__ = (
    "accepted",
    "configuration_pending",
    "listed",
    "load_reason",
    "no_ready_pods",
    "pods_unreachable",
    "pool_trouble",
    "rollout_pending",
)


def accepted(
    finding: Finding, *, index: str | None, rendered: Rendered | None, observed: Observed
) -> Finding:
    """The condition `Accepted`: also whatever rendering or the API server did not take."""
    if not finding.holds:
        return finding
    for refusal in rendered.refused if rendered is not None else ():
        if not refusal.optional and refusal.index in {None, index}:
            return false(refusal.reason, refusal.message)
    if observed.failure is not None:
        return false(observed.failure.reason, observed.failure.message)
    return finding


def no_ready_pods(observed: Observed) -> Finding | None:
    """Why nobody answers, where no pod is ready."""
    if observed.ready:
        return None
    waiting = [f"{pod.pod}: {pod.waiting}" for pod in observed.pods if pod.waiting]
    return false("NoReadyPods", f"no pod is ready{listed(waiting)}")


def rollout_pending(observed: Observed) -> Finding | None:
    """What the Deployment still has to do."""
    rollout = observed.rollout
    if rollout.complete:
        return None
    if rollout.stuck is not None:
        return false("RolloutStuck", rollout.stuck)
    told = f"{rollout.updated} of {rollout.desired} pods are new, {rollout.ready} are ready"
    old = rollout.replicas - rollout.updated
    return true("Rollout", f"{told}, {old} old ones are left" if old > 0 else told)


def configuration_pending(rendered: Rendered, observed: Observed) -> Finding | None:
    """Which ready pods do not have the configuration in force yet."""
    late = [pod.pod for pod in observed.ready if pod.configuration_hash != rendered.configuration_hash]
    if not late:
        return None
    count = len(observed.ready)
    return true(
        "HotReload", f"{count - len(late)} of {count} ready pods have the configuration{listed(late)}"
    )


def pods_unreachable(observed: Observed) -> Finding | None:
    """Which ready pods could not be asked, so that nothing is known of them."""
    silent = [f"{pod.pod}: {pod.error}" for pod in observed.ready if pod.error]
    return false("PodsUnreachable", "; ".join(silent)) if silent else None


def pool_trouble(rendered: Rendered | None, observed: Observed) -> Finding | None:
    """What is wrong with the pool and needs somebody, the worst first."""
    refused = [f"{pod.pod}: {pod.refused}" for pod in observed.pods if pod.refused]
    if refused:
        return true("ConfigurationRefused", "; ".join(refused))
    if observed.rollout.stuck is not None:
        return true("RolloutStuck", observed.rollout.stuck)
    waiting = [f"{pod.pod}: {pod.waiting}" for pod in observed.pods if pod.waiting]
    if waiting:
        return true("PodsFailing", "; ".join(waiting))
    if (unreachable := pods_unreachable(observed)) is not None:
        return true(unreachable.reason, unreachable.message)
    for refusal in rendered.refused if rendered is not None else ():
        if refusal.optional:
            return true(refusal.reason, refusal.message)
    return None


def load_reason(failure: LoadFailure) -> str:
    """The reason of a condition for a load code of the service."""
    return LOAD_REASONS.get(failure.code, "LoadFailed")


def listed(names: Iterable[str]) -> str:
    """The first three, for the end of a message; empty where there are none."""
    told = list(names)
    return f": {'; '.join(told[:3])}{' ...' if len(told) > 3 else ''}" if told else ""  # noqa: PLR2004
