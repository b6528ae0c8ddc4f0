"""What changes the number of pods, and what keeps it from falling too low."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kosine_operator.pools import Reason, Refusal
from kosine_operator.render.metadata import pool_metadata, selector
from kosine_operator.resources import DisruptionBudget

if TYPE_CHECKING:
    from kosine_operator.pools import Pool
    from kosine_operator.render.model import Capabilities, Manifest
    from kosine_operator.resources import Autoscaling, Keda, ServerSpec

__all__ = ("scaling",)

_METRIC = "kosine_queue_rows"
"""The service's own; the load of a CPU says nothing about a GPU, nor about a batcher."""


def scaling(pool: Pool, capabilities: Capabilities) -> tuple[list[Manifest], tuple[Refusal, ...]]:
    """An autoscaler where one is asked for, and a disruption budget where there can be two pods."""
    autoscaling = pool.server.autoscaling
    budget = [_disruption_budget(pool)] if _most_replicas(pool.server) > 1 else []
    if autoscaling is None:
        return budget, ()
    if autoscaling.keda is None:
        return [*budget, _horizontal(pool, autoscaling)], ()
    if not capabilities.scaled_object:
        message = "autoscaling.keda needs the CRD ScaledObject of keda.sh; install KEDA, or remove keda"
        return budget, (Refusal(Reason.CRD_NOT_INSTALLED, message, optional=True),)
    return [*budget, _scaled_object(pool, autoscaling, autoscaling.keda)], ()


def _most_replicas(server: ServerSpec) -> int:
    if server.autoscaling is not None:
        return server.autoscaling.max_replicas
    return 1 if server.replicas is None else server.replicas


def _disruption_budget(pool: Pool) -> Manifest:
    budget = pool.server.disruption_budget or DisruptionBudget()
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": pool_metadata(pool),
        "spec": {
            "maxUnavailable": budget.max_unavailable,
            "selector": {"matchLabels": selector(pool)},
            # A pod that is not ready serves nobody: it must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def _horizontal(pool: Pool, autoscaling: Autoscaling) -> Manifest:
    target = {"type": "AverageValue", "averageValue": str(autoscaling.target_queue_rows)}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": pool_metadata(pool),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": pool.key.name},
            "minReplicas": autoscaling.min_replicas,
            "maxReplicas": autoscaling.max_replicas,
            "metrics": [{"type": "Pods", "pods": {"metric": {"name": _METRIC}, "target": target}}],
            "behavior": _behaviour(autoscaling),
        },
    }


def _scaled_object(pool: Pool, autoscaling: Autoscaling, keda: Keda) -> Manifest:
    name, namespace = pool.key.name, pool.key.namespace
    # One scrape tells of one moment; without pods there is no series, and KEDA would call it an error.
    waiting = f'{_METRIC}{{namespace="{namespace}",service="{name}"}}'
    query = keda.query or f"sum(avg_over_time({waiting}[1m])) or vector(0)"
    metadata = {
        "serverAddress": keda.server_address,
        "query": query,
        "threshold": str(autoscaling.target_queue_rows),
    }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": pool_metadata(pool),
        "spec": {
            "scaleTargetRef": {"name": name},
            "minReplicaCount": autoscaling.min_replicas,
            "maxReplicaCount": autoscaling.max_replicas,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behaviour(autoscaling)}},
            "triggers": [{"type": "prometheus", "metricType": "AverageValue", "metadata": metadata}],
        },
    }


def _behaviour(autoscaling: Autoscaling) -> dict[str, Any]:
    return {"scaleDown": {"stabilizationWindowSeconds": autoscaling.scale_down_stabilization_seconds}}
