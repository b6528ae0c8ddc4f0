"""Who reaches the pods: routes, network policy, Prometheus. Each only where it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kosine_operator.pools import Reason, Refusal
from kosine_operator.render.container import PORT_NAME
from kosine_operator.render.metadata import INDEX_LABEL, MANAGER, pool_metadata, selector
from kosine_operator.render.services import SERVICE_PORT
from kosine_operator.resources import INDEX_KIND

if TYPE_CHECKING:
    from kosine_operator.pools import Pool
    from kosine_operator.render.model import Capabilities, Defaults, Manifest
    from kosine_operator.resources import (
        HttpRoute,
        NetworkPeer,
        NetworkPolicy,
        ParentRef,
        ServiceMonitor,
    )

__all__ = ("exposure",)


def exposure(
    pool: Pool, defaults: Defaults, capabilities: Capabilities
) -> tuple[list[Manifest], tuple[Refusal, ...]]:
    """What is asked for and can be, and what cannot, because its CRD is not there."""
    manifests, refusals = [], []
    server = pool.server
    if server.network_policy is not None:
        manifests.append(_network_policy(pool, server.network_policy, defaults))
    monitor = server.monitoring.service_monitor if server.monitoring else None
    if monitor is not None and capabilities.service_monitor:
        manifests.append(_service_monitor(pool, monitor))
    elif monitor is not None:
        refusals.append(_missing("monitoring.serviceMonitor", "ServiceMonitor of monitoring.coreos.com"))
    if server.http_route is not None and capabilities.http_route:
        manifests.append(_http_route(pool, server.http_route))
    elif server.http_route is not None:
        refusals.append(_missing("httpRoute", "HTTPRoute of gateway.networking.k8s.io"))
    return manifests, tuple(refusals)


def _missing(field: str, crd: str) -> Refusal:
    message = f"{field} needs the CRD {crd}; install it, or remove {field}"
    return Refusal(Reason.CRD_NOT_INSTALLED, message, optional=True)


def _network_policy(pool: Pool, policy: NetworkPolicy, defaults: Defaults) -> Manifest:
    operator = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": defaults.operator_namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": MANAGER}},
    }
    peers = [operator, *map(_peer, policy.from_)]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": pool_metadata(pool),
        "spec": {
            "podSelector": {"matchLabels": selector(pool)},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": peers, "ports": [{"port": PORT_NAME, "protocol": "TCP"}]}],
        },
    }


def _peer(peer: NetworkPeer) -> dict[str, Any]:
    """A selector that is missing means this namespace; one without labels, every one."""
    given = {"namespaceSelector": peer.namespace_labels, "podSelector": peer.pod_labels}
    selectors = {
        name: {"matchLabels": dict(labels)} if labels else {}
        for name, labels in given.items()
        if labels is not None
    }
    return selectors or {"podSelector": {}}


def _service_monitor(pool: Pool, monitor: ServiceMonitor) -> Manifest:
    # The Service of an index alone is the one of its pods; it has no label of the pool.
    dedicated = pool.key.kind == INDEX_KIND
    labels = {INDEX_LABEL: pool.key.name} if dedicated else selector(pool)
    endpoint = {"port": PORT_NAME, "path": "/metrics"}
    metadata = pool_metadata(pool)
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {**metadata, "labels": {**monitor.labels, **metadata["labels"]}},
        "spec": {
            "selector": {"matchLabels": labels},
            "endpoints": [{**endpoint, **({"interval": monitor.interval} if monitor.interval else {})}],
        },
    }


def _http_route(pool: Pool, route: HttpRoute) -> Manifest:
    """Queries and what is said of indexes; neither probes nor metrics."""
    paths = [{"type": "PathPrefix", "value": "/indexes"}, {"type": "Exact", "value": "/cos"}]
    rule = {
        "matches": [{"path": path} for path in paths],
        "backendRefs": [{"name": pool.key.name, "port": SERVICE_PORT}],
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": pool_metadata(pool),
        "spec": {
            "parentRefs": [_parent(ref) for ref in route.parent_refs],
            **({"hostnames": list(route.hostnames)} if route.hostnames else {}),
            "rules": [rule],
        },
    }


def _parent(ref: ParentRef) -> dict[str, str]:
    given = {"name": ref.name, "namespace": ref.namespace, "sectionName": ref.section_name}
    return {name: value for name, value in given.items() if value is not None}
