"""What each pod of a pool is: restricted, without a token, with its claims and the overlay laid over it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from kosine_operator.pools import Reason, Refusal
from kosine_operator.render.configuration import CLAIMS, FOLDER
from kosine_operator.render.container import (
    CACHE,
    CREDENTIALS,
    RESTRICTED,
    TEMPORARY,
    container,
    termination_seconds,
)
from kosine_operator.render.metadata import pool_metadata, selector
from kosine_operator.render.overlay import merged, not_allowed
from kosine_operator.resources import Toleration, TopologySpread

if TYPE_CHECKING:
    from kosine_operator.pools import Pool
    from kosine_operator.render.configuration import Configuration
    from kosine_operator.render.model import Defaults
    from kosine_operator.resources import Cache, PodTemplate, ServerSpec

__all__ = ("Template", "pod_template")

_USER = 65532
"""The `nonroot` of distroless images, and of the image of the service."""
_HOST = "kubernetes.io/hostname"


@dataclass(frozen=True, slots=True)
class Template:
    """A pod template, or why there is none."""

    manifest: dict[str, Any]
    refused: tuple[Refusal, ...] = ()


def pod_template(pool: Pool, configuration: Configuration, defaults: Defaults) -> Template:
    """The template of the Deployment's pods."""
    server = pool.server
    refused = (*_refused_account(server, defaults), *_refused_overlay(server))
    volumes, mounts = _volumes(pool, configuration)
    spec = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _security(),
        "terminationGracePeriodSeconds": termination_seconds(server),
        "containers": [container(server, mounts, defaults)],
        "volumes": volumes,
        **_scheduling(pool),
    }
    template = {"metadata": {"labels": pool_metadata(pool)["labels"]}, "spec": spec}
    if server.pod_template is not None and not refused:
        template = _overlaid(template, server.pod_template)
    return Template(template, refused)


def _security() -> dict[str, Any]:
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _volumes(pool: Pool, configuration: Configuration) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes and where the service has them."""
    volumes: list[dict[str, Any]] = [
        {"name": "configuration", "configMap": {"name": pool.key.name}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "configuration", "mountPath": FOLDER, "readOnly": True},
        {"name": "tmp", "mountPath": TEMPORARY},
    ]
    for mount, secret in _secrets(pool.server).items():
        # Optional: a Secret that is missing is an index that cannot be read, not a pod that cannot start.
        volumes.append({"name": f"credentials-{mount}", "secret": {"secretName": secret, "optional": True}})
        path = f"{CREDENTIALS}/{mount}"
        mounts.append({"name": f"credentials-{mount}", "mountPath": path, "readOnly": True})
    if pool.server.cache is not None:
        volumes.append({"name": "cache", **_cache_of(pool.server.cache)})
        mounts.append({"name": "cache", "mountPath": CACHE})
    for claim in configuration.claims:
        name = f"claim-{hashlib.sha256(claim.encode()).hexdigest()[:12]}"
        volumes.append({"name": name, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
        mounts.append({"name": name, "mountPath": f"{CLAIMS}/{claim}", "readOnly": True})
    return volumes, mounts


def _secrets(server: ServerSpec) -> dict[str, str]:
    credentials = server.credentials
    if credentials is None:
        return {}
    given = {"s3": credentials.s3, "gcs": credentials.gcs, "indexes": credentials.indexes}
    return {mount: secret.name for mount, secret in given.items() if secret is not None}


def _cache_of(cache: Cache) -> dict[str, Any]:
    if cache.claim_name is not None:
        return {"persistentVolumeClaim": {"claimName": cache.claim_name}}
    return {"emptyDir": {} if cache.size_limit is None else {"sizeLimit": cache.size_limit}}


def _scheduling(pool: Pool) -> dict[str, Any]:
    server = pool.server
    spread = server.topology_spread
    if spread is None:
        spread = (TopologySpread(topology_key=_HOST),)
    tolerations = server.tolerations
    if server.gpu is not None:
        tolerations = (*tolerations, Toleration(key=server.gpu.resource_name, operator="Exists"))
    wanted = {
        "imagePullSecrets": [{"name": name} for name in server.image_pull_secrets],
        "serviceAccountName": server.service_account_name,
        "priorityClassName": server.priority_class_name,
        "runtimeClassName": server.gpu.runtime_class_name if server.gpu else None,
        "nodeSelector": dict(server.node_selector),
        "affinity": server.affinity,
        "tolerations": [msgspec.to_builtins(toleration) for toleration in tolerations],
        "topologySpreadConstraints": [_constraint(pool, constraint) for constraint in spread],
    }
    return {name: value for name, value in wanted.items() if value}


def _constraint(pool: Pool, spread: TopologySpread) -> dict[str, Any]:
    return {
        "topologyKey": spread.topology_key,
        "maxSkew": spread.max_skew,
        "whenUnsatisfiable": spread.when_unsatisfiable,
        "labelSelector": {"matchLabels": selector(pool)},
        # Otherwise pods of the template that is being replaced would count.
        "matchLabelKeys": ["pod-template-hash"],
    }


def _refused_account(server: ServerSpec, defaults: Defaults) -> tuple[Refusal, ...]:
    account = server.service_account_name
    if account is None or {account, "*"} & defaults.service_accounts:
        return ()
    allowed = ", ".join(sorted(defaults.service_accounts)) or "none"
    message = f"serviceAccountName {account} is not one that the operator allows ({allowed}); ask who runs it"
    return (Refusal(Reason.SERVICE_ACCOUNT_NOT_ALLOWED, message),)


def _refused_overlay(server: ServerSpec) -> tuple[Refusal, ...]:
    problem = not_allowed(server.pod_template) if server.pod_template is not None else None
    return () if problem is None else (Refusal(Reason.INVALID_POD_TEMPLATE, problem),)


def _overlaid(template: dict[str, Any], overlay: PodTemplate) -> dict[str, Any]:
    """Labels of the overlay yield to ours, which selectors need; its containers are restricted, too."""
    added = overlay.metadata
    labels = {**(added.labels if added else {}), **template["metadata"]["labels"]}
    annotations = dict(added.annotations) if added else {}
    spec = merged(template["spec"], overlay.spec or {})
    for kind in ("containers", "initContainers"):
        if kind in spec:
            spec[kind] = [{**item, "securityContext": RESTRICTED} for item in spec[kind]]
    metadata = {"labels": labels, **({"annotations": annotations} if annotations else {})}
    return {"metadata": metadata, "spec": spec}
