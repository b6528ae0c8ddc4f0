"""The container of the service: its arguments, its environment, how it is probed and what it may do."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import msgspec

from kosine_operator.quantities import seconds_of, size_of
from kosine_operator.render.configuration import CLAIMS, FILE, FOLDER
from kosine_operator.resources import Process, Resources, Stores

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kosine_operator.render.model import Defaults
    from kosine_operator.resources import Gpu, ServerSpec

__all__ = (
    "CACHE",
    "CONTAINER",
    "CREDENTIALS",
    "PORT",
    "PORT_NAME",
    "RESTRICTED",
    "TEMPORARY",
    "container",
    "termination_seconds",
)

CONTAINER = "kosine"
PORT = 8080
PORT_NAME = "http"
CACHE = "/var/cache/kosine"
TEMPORARY = "/tmp"  # noqa: S108  an emptyDir of the pod's own
CREDENTIALS = "/var/run/kosine/credentials"
"""Below it the Secret of each store is mounted, and that of indexes: as folders, so that changes arrive."""

RESTRICTED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
"""What the restricted Pod Security Standard asks of a container, and a read-only root."""

_DRAIN_DELAY = "5s"
"""Endpoints and proxies learn of an ending pod within a few seconds."""
_GRACE = "30s"
_CLOSING_SECONDS = 5
_SIZES = frozenset({"memory_limit", "body_limit"})


def container(server: ServerSpec, mounts: list[dict[str, Any]], defaults: Defaults) -> dict[str, Any]:
    """The container that runs `kosine serve`, with these volumes mounted."""
    resources = _resources(server, defaults)
    return {
        "name": CONTAINER,
        "image": server.image or defaults.image,
        "imagePullPolicy": server.image_pull_policy or defaults.image_pull_policy,
        "args": ["serve", "--config", f"{FOLDER}/{FILE}", *_options(server)],
        "env": [{"name": name, "value": value} for name, value in _environment(server).items()],
        "ports": [{"name": PORT_NAME, "containerPort": PORT, "protocol": "TCP"}],
        **({"resources": resources} if resources else {}),
        **_probes(),
        "securityContext": RESTRICTED,
        "volumeMounts": mounts,
    }


def termination_seconds(server: ServerSpec) -> int:
    """From SIGTERM to SIGKILL: time to drain, to finish and to close.

    There is no preStop hook: the service itself turns unready on SIGTERM and answers on for `drain_delay`.
    """
    process = server.process or Process()
    drain, grace = process.drain_delay or _DRAIN_DELAY, process.grace or _GRACE
    return math.ceil(seconds_of(drain) + seconds_of(grace)) + _CLOSING_SECONDS


def _options(server: ServerSpec) -> list[str]:
    """`--set` for whatever takes a new process, so that a change of it makes one."""
    values = {
        "host": "0.0.0.0",  # noqa: S104  the pod's network is its own
        "port": PORT,
        "device": "gpu" if server.gpu else "cpu",
        # On the command line, so that no configuration file can widen it.
        "file_roots": CLAIMS,
        "drain_delay": _DRAIN_DELAY,
        "grace": _GRACE,
        **_given(server.process or Process()),
    }
    if server.cache is not None:
        values["cache_dir"] = CACHE
    stores = _given(server.stores or Stores(), "stores.")
    if server.credentials and server.credentials.indexes:
        stores["stores.credentials_dir"] = f"{CREDENTIALS}/indexes"
    return list(_as_options({**values, **stores}))


def _given(section: msgspec.Struct, prefix: str = "") -> dict[str, Any]:
    """The settings that were given, in the names and the notation of the service."""
    given: dict[str, Any] = {}
    for name in section.__struct_fields__:
        value = getattr(section, name)
        if isinstance(value, msgspec.Struct):
            given |= _given(value, f"{prefix}{name}.")
        elif value is not None:
            given[prefix + name] = size_of(value) if name in _SIZES else value
    return given


def _as_options(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        yield "--set"
        yield f"service.{name}={json.dumps(value)}"


def _environment(server: ServerSpec) -> dict[str, str]:
    credentials = server.credentials
    environment = {"HOME": TEMPORARY}
    if server.gpu:
        environment |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "CUDA_CACHE_PATH": f"{TEMPORARY}/cuda"}
    if credentials and credentials.s3:
        environment["AWS_SHARED_CREDENTIALS_FILE"] = f"{CREDENTIALS}/s3/{credentials.s3.key}"
    if credentials and credentials.gcs:
        environment["GOOGLE_APPLICATION_CREDENTIALS"] = f"{CREDENTIALS}/gcs/{credentials.gcs.key}"
    return environment


def _resources(server: ServerSpec, defaults: Defaults) -> dict[str, Any]:
    given = server.resources or Resources()
    requests, limits = dict(given.requests), dict(given.limits)
    if defaults.memory is not None and not _speaks_of_memory(server, given):
        requests["memory"] = limits["memory"] = defaults.memory
    if server.gpu:
        # Extended resources are whole and cannot be overcommitted: a limit is the request, too.
        limits |= _devices(server.gpu)
    return {name: values for name, values in (("requests", requests), ("limits", limits)) if values}


def _speaks_of_memory(server: ServerSpec, given: Resources) -> bool:
    """Whether the resource decides itself: by resources, or by a bound that another limit would undercut.

    With a GPU, too: what CUDA takes of the host's memory depends on device and driver.
    """
    bounded = server.process is not None and server.process.memory_limit is not None
    return bounded or server.gpu is not None or "memory" in {**given.requests, **given.limits}


def _devices(gpu: Gpu) -> dict[str, Any]:
    return {gpu.resource_name: str(gpu.count)}


def _probes() -> dict[str, Any]:
    """Starting is importing TensorFlow; loading is `/readyz`'s matter and may take as long as it takes."""
    return {
        "startupProbe": _probe("/livez", period=1, failures=300),
        "readinessProbe": _probe("/readyz", period=2, failures=2),
        "livenessProbe": _probe("/livez", period=10, failures=6),
    }


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": PORT_NAME},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
