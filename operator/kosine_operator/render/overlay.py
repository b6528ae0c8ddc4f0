"""`podTemplate`: how it is merged, and what it must not say.

Whoever may write a CosineIndex gets pods through the operator's rights, so what would widen those pods beyond
the restricted Pod Security Standard is refused by name: an allow-list, since pods grow new fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kosine_operator.render.container import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kosine_operator.resources import PodTemplate

__all__ = ("merged", "not_allowed")

_SPEC = frozenset(
    {
        "affinity",
        "containers",
        "dnsConfig",
        "dnsPolicy",
        "enableServiceLinks",
        "hostAliases",
        "imagePullSecrets",
        "initContainers",
        "nodeSelector",
        "overhead",
        "preemptionPolicy",
        "priorityClassName",
        "readinessGates",
        "resourceClaims",
        "runtimeClassName",
        "schedulerName",
        "schedulingGates",
        "securityContext",
        "terminationGracePeriodSeconds",
        "tolerations",
        "topologySpreadConstraints",
        "volumes",
    }
)
_SECURITY = frozenset({"fsGroup", "fsGroupChangePolicy", "runAsGroup", "runAsUser", "supplementalGroups"})
_CONTAINER_REFUSED = frozenset({"securityContext", "volumeDevices"})
_OWN_CONTAINER_REFUSED = frozenset({"args", "command", "image", "ports"})
"""Of the service: fields of the resource, or what the operator relies on."""
_VOLUMES = frozenset(
    {
        "name",
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
_WHY = "pods stay within the restricted Pod Security Standard and have no token"
_KEYS = {"volumeMounts": "mountPath", "ports": "containerPort"}


def merged(base: Any, overlay: Any, *, key: str = "name") -> Any:
    """Maps key by key, lists of named items by name, anything else replaced.

    >>> merged({"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "B", "value": "2"}]})
    {'env': [{'name': 'A', 'value': '1'}, {'name': 'B', 'value': '2'}]}
    """
    if isinstance(base, dict) and isinstance(overlay, dict):
        below = {
            name: merged(base[name], value, key=_KEYS.get(name, "name")) if name in base else value
            for name, value in overlay.items()
        }
        return {**base, **below}
    if _is_keyed(base, key) and _is_keyed(overlay, key):
        items = {item[key]: item for item in base}
        for item in overlay:
            items[item[key]] = merged(items.get(item[key], {}), item)
        return list(items.values())
    return overlay


def not_allowed(overlay: PodTemplate) -> str | None:
    """The first thing that is refused, for people; None where all is well."""
    return next(_problems(overlay.spec or {}), None)


def _problems(spec: Mapping[str, Any]) -> Iterator[str]:
    yield from _outside(spec, _SPEC, "podTemplate.spec")
    security = spec.get("securityContext", {})
    yield from _shape(security, dict, "podTemplate.spec.securityContext")
    yield from _outside(security, _SECURITY, "podTemplate.spec.securityContext")
    if isinstance(security, dict) and security.get("runAsUser") == 0:
        yield f"podTemplate.spec.securityContext.runAsUser 0 is refused: {_WHY}"
    for kind in ("containers", "initContainers"):
        for path, item in _items(spec, kind):
            yield from _container_problems(item, path) if isinstance(item, dict) else _shape(item, dict, path)
    for path, volume in _items(spec, "volumes"):
        yield from _volume_problems(volume, path) if isinstance(volume, dict) else _shape(volume, dict, path)


def _items(spec: Mapping[str, Any], field: str) -> Iterator[tuple[str, Any]]:
    items = spec.get(field, [])
    path = f"podTemplate.spec.{field}"
    if not isinstance(items, list):
        yield path, None
        return
    yield from ((f"{path}[{position}]", item) for position, item in enumerate(items))


def _container_problems(container: dict[str, Any], path: str) -> Iterator[str]:
    if not isinstance(container.get("name"), str):
        yield f"{path}.name is missing; `{CONTAINER}` is the container of the service"
    refused = _CONTAINER_REFUSED | (_OWN_CONTAINER_REFUSED if container.get("name") == CONTAINER else set())
    for field in sorted(refused & container.keys()):
        yield f"{path}.{field} is refused: {_WHY}, and the service is started by the operator"
    ports = container.get("ports")
    for position, port in enumerate(ports if isinstance(ports, list) else []):
        if isinstance(port, dict) and port.get("hostPort"):
            yield f"{path}.ports[{position}].hostPort is refused: {_WHY}"


def _volume_problems(volume: dict[str, Any], path: str) -> Iterator[str]:
    yield from _outside(volume, _VOLUMES, path)
    projected = volume.get("projected")
    sources = projected.get("sources") if isinstance(projected, dict) else []
    for position, source in enumerate(sources if isinstance(sources, list) else []):
        if isinstance(source, dict) and "serviceAccountToken" in source:
            yield f"{path}.projected.sources[{position}].serviceAccountToken is refused: {_WHY}"


def _outside(given: Any, allowed: frozenset[str], path: str) -> Iterator[str]:
    for field in sorted(given.keys() - allowed) if isinstance(given, dict) else ():
        yield f"{path}.{field} is refused: {_WHY}; allowed are {', '.join(sorted(allowed))}"


def _shape(value: Any, kind: type, path: str) -> Iterator[str]:
    if not isinstance(value, kind):
        yield f"{path}: expected {'a mapping' if kind is dict else 'a list'}, got {type(value).__name__}"


def _is_keyed(value: Any, key: str) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) and key in item for item in value)
