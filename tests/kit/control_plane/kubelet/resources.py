"""What the kubelet reads of Pods, Services and EndpointSlices, typed; the rest of them is dropped."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = (
    "ClaimSource",
    "ConfigMapSource",
    "Container",
    "DownwardSource",
    "EndpointSlice",
    "EnvVar",
    "ExecAction",
    "Handler",
    "HttpGetAction",
    "Pod",
    "PodSpec",
    "Probe",
    "Projected",
    "SecretSource",
    "Service",
    "ServicePort",
    "TokenSource",
    "Volume",
    "VolumeMount",
)


class _Resource(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Fields are named as in Python; JSON has them in camelCase."""


class Metadata(_Resource, frozen=True):
    name: str
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: float | None = None


class KeyToPath(_Resource, frozen=True):
    key: str
    path: str


class ConfigMapSource(_Resource, frozen=True):
    """A volume's or a reference's."""

    name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: bool = False


class SecretSource(_Resource, frozen=True):
    """A volume says secretName, a projection and a reference say name."""

    name: str = ""
    secret_name: str = ""
    items: tuple[KeyToPath, ...] = ()
    optional: bool = False


class FieldRef(_Resource, frozen=True):
    field_path: str


class DownwardItem(_Resource, frozen=True):
    path: str
    field_ref: FieldRef | None = None


class DownwardSource(_Resource, frozen=True):
    items: tuple[DownwardItem, ...] = ()


class TokenSource(_Resource, frozen=True):
    path: str
    audience: str | None = None
    expiration_seconds: int = 3600


class Projection(_Resource, frozen=True):
    config_map: ConfigMapSource | None = None
    secret: SecretSource | None = None
    downward: DownwardSource | None = msgspec.field(name="downwardAPI", default=None)
    service_account_token: TokenSource | None = None


class Projected(_Resource, frozen=True):
    sources: tuple[Projection, ...] = ()


class HostPath(_Resource, frozen=True):
    path: str


class ClaimSource(_Resource, frozen=True):
    claim_name: str


class Volume(_Resource, frozen=True):
    """One of its sources is set."""

    name: str
    config_map: ConfigMapSource | None = None
    secret: SecretSource | None = None
    downward: DownwardSource | None = msgspec.field(name="downwardAPI", default=None)
    projected: Projected | None = None
    host_path: HostPath | None = None
    persistent_volume_claim: ClaimSource | None = None
    empty_dir: dict[str, Any] | None = None


class VolumeMount(_Resource, frozen=True):
    name: str
    mount_path: str
    read_only: bool = False
    sub_path: str = ""


class ExecAction(_Resource, frozen=True):
    command: tuple[str, ...]


class HttpHeader(_Resource, frozen=True):
    name: str
    value: str


class HttpGetAction(_Resource, frozen=True):
    port: int | str
    path: str = "/"
    http_headers: tuple[HttpHeader, ...] = ()


class TcpAction(_Resource, frozen=True):
    port: int | str


class SleepAction(_Resource, frozen=True):
    seconds: float


class Handler(_Resource, frozen=True):
    """What a lifecycle hook does: one of these."""

    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(_Resource, frozen=True):
    pre_stop: Handler | None = None


class Probe(_Resource, frozen=True):
    """Defaults are the API's."""

    exec: ExecAction | None = None
    http_get: HttpGetAction | None = None
    tcp_socket: TcpAction | None = None
    initial_delay_seconds: float = 0
    period_seconds: float = 10
    timeout_seconds: float = 1
    success_threshold: int = 1
    failure_threshold: int = 3


class KeySelector(_Resource, frozen=True):
    key: str
    name: str = ""
    optional: bool = False


class ResourceField(_Resource, frozen=True):
    resource: str


class EnvVarSource(_Resource, frozen=True):
    field_ref: FieldRef | None = None
    resource_field_ref: ResourceField | None = None
    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None


class EnvVar(_Resource, frozen=True):
    name: str
    value: str = ""
    value_from: EnvVarSource | None = None


class EnvFrom(_Resource, frozen=True):
    prefix: str = ""
    config_map_ref: ConfigMapSource | None = None
    secret_ref: SecretSource | None = None


class ContainerPort(_Resource, frozen=True):
    container_port: int
    name: str = ""


class SecurityContext(_Resource, frozen=True):
    read_only_root_filesystem: bool = False


class Container(_Resource, frozen=True):
    name: str
    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFrom, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()
    startup_probe: Probe | None = None
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    security_context: SecurityContext | None = None


class PodSpec(_Resource, frozen=True):
    containers: tuple[Container, ...]
    init_containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    restart_policy: str = "Always"
    active_deadline_seconds: float | None = None
    termination_grace_period_seconds: float = 30
    service_account_name: str = "default"
    node_name: str = ""


class PodStatus(_Resource, frozen=True):
    phase: str = "Pending"


class Pod(_Resource, frozen=True):
    metadata: Metadata
    spec: PodSpec
    status: PodStatus = PodStatus()


class ServicePort(_Resource, frozen=True):
    port: int
    name: str = ""
    protocol: str = "TCP"


class ServiceSpec(_Resource, frozen=True):
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    ports: tuple[ServicePort, ...] = ()


class Service(_Resource, frozen=True):
    metadata: Metadata
    spec: ServiceSpec = ServiceSpec()


class EndpointConditions(_Resource, frozen=True):
    ready: bool | None = None


class Endpoint(_Resource, frozen=True):
    addresses: tuple[str, ...]
    conditions: EndpointConditions = EndpointConditions()


class EndpointPort(_Resource, frozen=True):
    port: int | None = None
    name: str | None = ""


class EndpointSlice(_Resource, frozen=True):
    metadata: Metadata
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[EndpointPort, ...] | None = None
