"""CRDs of others that the operator writes to, as far as it does: strict, with the defaults that theirs have.

Written after ServiceMonitor v1, HTTPRoute v1 and ScaledObject v1alpha1. Whatever a stub does not declare, a
server-side apply of it is refused, so a typo in a rendered manifest does not pass.
"""

from __future__ import annotations

from typing import Any

__all__ = ("OTHER_CRDS",)

_Schema = dict[str, Any]
_STRING: _Schema = {"type": "string"}
_COUNT: _Schema = {"type": "integer", "format": "int32"}
_LABELS: _Schema = {"type": "object", "additionalProperties": _STRING}


def _object(*required: str, **properties: _Schema) -> _Schema:
    return {"type": "object", "properties": properties, **({"required": [*required]} if required else {})}


def _list(items: _Schema, **bounds: int) -> _Schema:
    return {"type": "array", "items": items, **bounds}


def _enum(*values: str, **more: str) -> _Schema:
    return {"type": "string", "enum": [*values], **more}


def _text(default: str, *, most: int = 253) -> _Schema:
    return {"type": "string", "default": default, "maxLength": most}


_RELABELINGS = _list(
    _object(
        sourceLabels=_list(_STRING),
        separator=_STRING,
        targetLabel=_STRING,
        regex=_STRING,
        replacement=_STRING,
        action=_enum("replace", "keep", "drop", "labelmap", "labeldrop", "labelkeep", default="replace"),
    )
)
_SERVICE_MONITOR = _object(
    "endpoints",
    "selector",
    selector=_object(matchLabels=_LABELS),
    endpoints=_list(
        _object(
            port=_STRING,
            path=_STRING,
            relabelings=_RELABELINGS,
            metricRelabelings=_RELABELINGS,
            scheme=_enum("http", "https"),
            interval={"type": "string", "pattern": r"^(0|([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$"},
        )
    ),
)
_PARENT = _object(
    "name",
    group=_text("gateway.networking.k8s.io"),
    kind=_text("Gateway", most=63),
    name={"type": "string", "minLength": 1, "maxLength": 253},
    namespace={"type": "string", "minLength": 1, "maxLength": 63},
    sectionName={"type": "string", "minLength": 1, "maxLength": 253},
)
_BACKEND = _object(
    "name",
    group=_text(""),
    kind=_text("Service", most=63),
    name={"type": "string", "minLength": 1, "maxLength": 253},
    port={**_COUNT, "minimum": 1, "maximum": 65535},
    weight={**_COUNT, "default": 1},
)
_MATCH = _object(
    path=_object(
        type=_enum("Exact", "PathPrefix", "RegularExpression", default="PathPrefix"),
        value=_text("/", most=1024),
    )
)
_HTTP_ROUTE = _object(
    parentRefs=_list(_PARENT, maxItems=32),
    hostnames=_list({"type": "string", "minLength": 1, "maxLength": 253}, maxItems=16),
    rules=_list(_object(matches=_list(_MATCH), backendRefs=_list(_BACKEND)), minItems=1, maxItems=16),
)
_SCALED_OBJECT = _object(
    "scaleTargetRef",
    "triggers",
    scaleTargetRef=_object("name", apiVersion=_STRING, kind=_STRING, name=_STRING),
    minReplicaCount=_COUNT,
    maxReplicaCount=_COUNT,
    pollingInterval=_COUNT,
    advanced=_object(
        horizontalPodAutoscalerConfig=_object(
            behavior=_object(scaleDown=_object(stabilizationWindowSeconds=_COUNT))
        )
    ),
    triggers=_list(_object("type", "metadata", type=_STRING, metricType=_STRING, metadata=_LABELS)),
)


def _definition(group: str, version: str, kind: str, spec: _Schema) -> dict[str, Any]:
    plural = f"{kind.lower()}s"
    served = {
        "name": version,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": _object("spec", spec=spec, status=_object())},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            # The API server asks for it in groups of Kubernetes' own.
            "annotations": {"api-approved.kubernetes.io": "unapproved, a stub of tests"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [served],
        },
    }


OTHER_CRDS = (
    _definition("monitoring.coreos.com", "v1", "ServiceMonitor", _SERVICE_MONITOR),
    _definition("gateway.networking.k8s.io", "v1", "HTTPRoute", _HTTP_ROUTE),
    _definition("keda.sh", "v1alpha1", "ScaledObject", _SCALED_OBJECT),
)
