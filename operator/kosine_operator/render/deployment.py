"""The Deployment of a pool: how many pods, and how they are replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kosine_operator.render.metadata import pool_metadata, selector
from kosine_operator.resources import RollingUpdate

if TYPE_CHECKING:
    from kosine_operator.pools import Pool
    from kosine_operator.render.model import Live, Manifest
    from kosine_operator.resources import ServerSpec

__all__ = ("deployment",)

_PROGRESS_SECONDS = 900
"""A new pod is ready once its indexes are loaded, which may take minutes."""


def deployment(pool: Pool, template: dict[str, Any], live: Live) -> Manifest:
    """`spec.replicas` is left out where somebody else decides it."""
    replicas = _replicas(pool.server, live)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": pool_metadata(pool),
        "spec": {
            **({} if replicas is None else {"replicas": replicas}),
            "selector": {"matchLabels": selector(pool)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": _rolling_update(pool.server)},
            "progressDeadlineSeconds": _PROGRESS_SECONDS,
            "revisionHistoryLimit": 3,
            "template": template,
        },
    }


def _replicas(server: ServerSpec, live: Live) -> int | None:
    """With an autoscaler: the live number until it has written one itself.

    A field that is left out of a server-side apply goes back to its default of 1, unless another manager owns
    it by then.
    """
    if server.autoscaling is None:
        return 1 if server.replicas is None else server.replicas
    if live.replicas_owned:
        return None
    # An autoscaler leaves a Deployment of 0 alone.
    return live.replicas or server.autoscaling.min_replicas


def _rolling_update(server: ServerSpec) -> dict[str, int | str]:
    """A spare pod comes first; where it could not have a device or its claim, an old pod goes first."""
    asked = server.rolling_update or RollingUpdate()
    surge, unavailable = asked.max_surge, asked.max_unavailable
    if surge is None:
        surge = 1 if _is_zero(unavailable) or (unavailable is None and not _is_alone(server)) else 0
    if unavailable is None:
        unavailable = 1 if _is_zero(surge) else 0
    return {"maxSurge": surge, "maxUnavailable": unavailable}


def _is_alone(server: ServerSpec) -> bool:
    """Whether a pod has what there is no second one of."""
    return server.gpu is not None or (server.cache is not None and server.cache.claim_name is not None)


def _is_zero(pods: int | str | None) -> bool:
    return pods in {0, "0%"}
