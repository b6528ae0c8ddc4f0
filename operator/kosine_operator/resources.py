"""`CosineIndex` and `CosineServer` as typed values; what the API server stores, nothing more.

The CRDs in charts/kosine-operator/files/crds/ are the source of truth and the door: whatever they refuse
never gets here. A contract test holds every field, default and bound of this module against them. Unknown
fields are ignored, so that an older operator can live beside a newer CRD. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime  # noqa: TC003
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct, field

__all__ = (
    "GROUP",
    "INDEX_KIND",
    "S3",
    "SERVER_KIND",
    "VERSION",
    "Autoscaling",
    "Batch",
    "Cache",
    "Canary",
    "Condition",
    "CosineIndex",
    "CosineServer",
    "CosineServerSpec",
    "Credentials",
    "DisruptionBudget",
    "Gcs",
    "Gpu",
    "Guard",
    "HttpRoute",
    "IndexSpec",
    "IndexStatus",
    "InvalidResource",
    "Keda",
    "Kind",
    "LastFailure",
    "Loaded",
    "Metadata",
    "Monitoring",
    "NetworkPeer",
    "NetworkPolicy",
    "ParentRef",
    "PodMetadata",
    "PodTemplate",
    "Previous",
    "Process",
    "Refresh",
    "Resources",
    "RollingUpdate",
    "SecretKey",
    "SecretRef",
    "ServerRef",
    "ServerSpec",
    "ServerStatus",
    "Service",
    "ServiceMonitor",
    "Serving",
    "Size",
    "Source",
    "Stores",
    "Toleration",
    "TopologySpread",
    "parse_index",
    "parse_server",
)

GROUP = "kosine.dev"
VERSION = "v1alpha1"
INDEX_KIND: Final = "CosineIndex"
SERVER_KIND: Final = "CosineServer"

Kind: TypeAlias = Literal["CosineIndex", "CosineServer"]

Duration: TypeAlias = Annotated[str, Meta(max_length=9, pattern=r"^[0-9]{1,6}(us|ms|s|m|h)$")]
"""In the notation of the service: `500us`, `250ms`, `30s`, `5m`, `24h`."""
Size: TypeAlias = Annotated[str, Meta(max_length=12, pattern=r"^[0-9]{1,9}(Ki|Mi|Gi|Ti)$")]
"""A Kubernetes quantity of bytes: `64Mi`."""
Uri: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1024)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=253)]
FileName: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9][-_.A-Za-z0-9]*$")
]
MaskName: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z0-9]([-_a-z0-9]{0,61}[a-z0-9])?\Z")]
Labels: TypeAlias = Mapping[str, str]
IntOrString: TypeAlias = int | str


class InvalidResource(ValueError):
    """The API server stored what this operator cannot read; the CRD in force is another one."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        """Of the field, as in `spec.source.uri`."""
        self.reason = reason


class _Struct(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Immutable, with the field names of the API."""


class Metadata(_Struct, frozen=True):
    """Of a stored object."""

    name: str
    namespace: str
    uid: str
    generation: int = 1
    resource_version: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: Labels = {}
    annotations: Labels = {}


class Source(_Struct, frozen=True):
    """Where the matrix comes from and how to read it."""

    uri: Uri
    ids: Uri | None = None
    masks: Annotated[Mapping[MaskName, Uri], Meta(max_length=16)] | None = None
    credentials: FileName | None = None
    """A key of the Secret of `Credentials.indexes`."""
    layout: Literal["rows", "columns", "transposed"] | None = None
    invalid_rows: Literal["refuse", "drop"] | None = None
    check_layout: bool | None = None


class Refresh(_Struct, frozen=True):
    """When the source is looked at again."""

    interval: Duration | None = None
    watch: bool | None = None
    settle: Duration | None = None
    timeout: Duration | None = None


class Batch(_Struct, frozen=True):
    """How concurrent queries become engine calls."""

    max_rows: Annotated[int, Meta(ge=1, le=4096)] | None = None
    linger: Duration | None = None
    queue_rows: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    queue_bytes: Size | None = None


class Guard(_Struct, frozen=True):
    """What a valid new file must also satisfy."""

    dim_change: Literal["refuse", "allow"] | None = None
    min_rows: Annotated[int, Meta(ge=1, le=2_147_483_647)] | None = None
    max_shrink_percent: Annotated[int, Meta(ge=0, le=100)] | None = None


class Canary(_Struct, frozen=True):
    """What a new version must show before callers get it."""

    max_row_drift_percent: Annotated[int, Meta(ge=0, le=10_000)] | None = None
    golden: Uri | None = None
    min_overlap_percent: Annotated[int, Meta(ge=0, le=100)] | None = None
    overlap_k: Annotated[int, Meta(ge=1, le=100)] | None = None
    overlap_sample: Annotated[int, Meta(ge=1, le=1000)] | None = None


class ServerRef(_Struct, frozen=True):
    """A CosineServer of the same namespace."""

    name: Annotated[str, Meta(min_length=1, max_length=50)]


class Keda(_Struct, frozen=True):
    """Scale by a Prometheus query instead of the HorizontalPodAutoscaler's pod metric."""

    server_address: Annotated[str, Meta(min_length=1, max_length=253)]
    query: Annotated[str, Meta(min_length=1, max_length=1024)] | None = None


class Autoscaling(_Struct, frozen=True):
    """Replicas that follow the queries that wait."""

    max_replicas: Annotated[int, Meta(ge=1, le=1000)]
    min_replicas: Annotated[int, Meta(ge=1, le=1000)] = 1
    target_queue_rows: Annotated[int, Meta(ge=1, le=1_000_000)] = 32
    scale_down_stabilization_seconds: Annotated[int, Meta(ge=0, le=3600)] = 300
    keda: Keda | None = None


class Resources(_Struct, frozen=True):
    """Of the service's container."""

    requests: Annotated[Mapping[str, IntOrString], Meta(max_length=8)] = {}
    limits: Annotated[Mapping[str, IntOrString], Meta(max_length=8)] = {}


class Gpu(_Struct, frozen=True):
    """Devices of each pod."""

    count: Annotated[int, Meta(ge=1, le=16)] = 1
    resource_name: Annotated[str, Meta(min_length=1, max_length=253)] = "nvidia.com/gpu"
    runtime_class_name: Name | None = None


class Process(_Struct, frozen=True):
    """Settings of the service's process."""

    threads: Annotated[int, Meta(ge=1, le=1024)] | None = None
    screening: Literal["auto", "never"] | None = None
    memory_limit: Size | None = None
    load_slots: Annotated[int, Meta(ge=1, le=64)] | None = None
    load_nice: Annotated[int, Meta(ge=0, le=19)] | None = None
    load_share_percent: Annotated[int, Meta(ge=1, le=100)] | None = None
    max_timeout: Duration | None = None
    body_limit: Size | None = None
    max_connections: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    drain_delay: Duration | None = None
    grace: Duration | None = None


class S3(_Struct, frozen=True):
    """Where s3:// is."""

    endpoint_url: Annotated[str, Meta(max_length=253)] | None = None
    region: Annotated[str, Meta(min_length=1, max_length=63)] | None = None
    anon: bool | None = None


class Gcs(_Struct, frozen=True):
    """Where gs:// is."""

    endpoint_url: Annotated[str, Meta(max_length=253)] | None = None
    anon: bool | None = None


class Stores(_Struct, frozen=True):
    """Requests to object stores."""

    s3: S3 | None = None
    gcs: Gcs | None = None
    parallel: Annotated[int, Meta(ge=1, le=64)] | None = None
    idle_timeout: Duration | None = None
    request_timeout: Duration | None = None


class SecretKey(_Struct, frozen=True):
    """A key of a Secret of the same namespace; only the kubelet reads it."""

    name: Name
    key: Annotated[str, Meta(min_length=1, max_length=253)] = "credentials"


class SecretRef(_Struct, frozen=True):
    """A Secret of the same namespace; only the kubelet reads it."""

    name: Name


class Credentials(_Struct, frozen=True):
    """Files of credentials, mounted; a rotated Secret reaches running pods."""

    s3: SecretKey | None = None
    gcs: SecretKey | None = None
    indexes: SecretRef | None = None


class Cache(_Struct, frozen=True):
    """Local copies of what was loaded: in the pod, or in a claim."""

    size_limit: Size | None = None
    claim_name: Annotated[str, Meta(min_length=1, max_length=63)] | None = None


class RollingUpdate(_Struct, frozen=True):
    """How pods are replaced."""

    max_surge: IntOrString | None = None
    max_unavailable: IntOrString | None = None


class DisruptionBudget(_Struct, frozen=True):
    """Pods that may be evicted at a time."""

    max_unavailable: IntOrString = 1


class TopologySpread(_Struct, frozen=True):
    """How replicas are spread."""

    topology_key: Annotated[str, Meta(min_length=1, max_length=316)]
    max_skew: Annotated[int, Meta(ge=1, le=100)] = 1
    when_unsatisfiable: Literal["ScheduleAnyway", "DoNotSchedule"] = "ScheduleAnyway"


class Toleration(_Struct, frozen=True):
    """A taint the pods may be scheduled onto."""

    key: Annotated[str, Meta(max_length=316)] | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: Annotated[str, Meta(max_length=63)] | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int, Meta(ge=0, le=2_147_483_647)] | None = None


class Service(_Struct, frozen=True):
    """The Service in front of the pods."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    annotations: Annotated[Labels, Meta(max_length=32)] = {}


class ParentRef(_Struct, frozen=True):
    """A Gateway."""

    name: Name
    namespace: Annotated[str, Meta(min_length=1, max_length=63)] | None = None
    section_name: Name | None = None


class HttpRoute(_Struct, frozen=True):
    """An HTTPRoute of the Gateway API."""

    parent_refs: Annotated[tuple[ParentRef, ...], Meta(min_length=1, max_length=8)]
    hostnames: Annotated[tuple[Name, ...], Meta(max_length=16)] = ()


class NetworkPeer(_Struct, frozen=True):
    """Pods that may ask; both selectors must match."""

    namespace_labels: Annotated[Labels, Meta(max_length=16)] | None = None
    pod_labels: Annotated[Labels, Meta(max_length=16)] | None = None


class NetworkPolicy(_Struct, frozen=True):
    """Who may open connections to the pods."""

    from_: Annotated[tuple[NetworkPeer, ...], Meta(max_length=16)] = field(default=(), name="from")


class ServiceMonitor(_Struct, frozen=True):
    """Scraping by the Prometheus operator."""

    interval: Duration | None = None
    labels: Annotated[Labels, Meta(max_length=16)] = {}


class Monitoring(_Struct, frozen=True):
    """How metrics are collected."""

    service_monitor: ServiceMonitor | None = None


class PodMetadata(_Struct, frozen=True):
    """Added to the pods."""

    labels: Annotated[Labels, Meta(max_length=32)] = {}
    annotations: Annotated[Labels, Meta(max_length=32)] = {}


class PodTemplate(_Struct, frozen=True):
    """Laid over the pod template."""

    metadata: PodMetadata | None = None
    spec: Annotated[Mapping[str, Any], Meta(max_length=32)] | None = None


class ServerSpec(_Struct, frozen=True):
    """Everything pod-shaped: of a CosineServer, or inline in a CosineIndex."""

    replicas: Annotated[int, Meta(ge=0, le=1000)] | None = None
    autoscaling: Autoscaling | None = None
    image: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: Annotated[tuple[Name, ...], Meta(max_length=8)] = ()
    resources: Resources | None = None
    gpu: Gpu | None = None
    process: Process | None = None
    stores: Stores | None = None
    credentials: Credentials | None = None
    cache: Cache | None = None
    rolling_update: RollingUpdate | None = None
    disruption_budget: DisruptionBudget | None = None
    topology_spread: Annotated[tuple[TopologySpread, ...], Meta(max_length=8)] | None = None
    node_selector: Annotated[Labels, Meta(max_length=16)] = {}
    tolerations: Annotated[tuple[Toleration, ...], Meta(max_length=16)] = ()
    affinity: Annotated[Mapping[str, Any], Meta(max_length=8)] | None = None
    priority_class_name: Name | None = None
    service_account_name: Name | None = None
    pod_template: PodTemplate | None = None
    service: Service | None = None
    http_route: HttpRoute | None = None
    network_policy: NetworkPolicy | None = None
    monitoring: Monitoring | None = None


class IndexSpec(_Struct, frozen=True):
    """What a CosineIndex asks for."""

    source: Source
    dim: Annotated[int, Meta(ge=1, le=65536)] | None = None
    metric: Literal["cosine", "dot"] | None = None
    k: Annotated[int, Meta(ge=1, le=16384)] | None = None
    max_k: Annotated[int, Meta(ge=1, le=16384)] | None = None
    max_query_rows: Annotated[int, Meta(ge=1, le=4096)] | None = None
    timeout: Duration | None = None
    policy: Literal["availability_preserving", "resource_preserving"] | None = None
    required: bool | None = None
    history: Annotated[int, Meta(ge=0, le=32)] | None = None
    refresh: Refresh | None = None
    batch: Batch | None = None
    guard: Guard | None = None
    canary: Canary | None = None
    memory: Size | None = None
    server_ref: ServerRef | None = None
    server: ServerSpec | None = None
    paused: bool = False


class CosineServerSpec(ServerSpec, frozen=True):
    """What a CosineServer asks for."""

    default_index: Annotated[str, Meta(min_length=1, max_length=50)] | None = None
    index_memory_limit: Size | None = None
    paused: bool = False


class Condition(_Struct, frozen=True):
    """One entry of `status.conditions`."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    last_transition_time: datetime
    observed_generation: int = 0


class Loaded(_Struct, frozen=True):
    """The version that serves."""

    version: str
    rows: int
    dim: int
    bytes: int
    time: datetime


class LastFailure(_Struct, frozen=True):
    """The last failure since the last good load."""

    reason: str
    message: str
    pod: str
    time: datetime


class Serving(_Struct, frozen=True):
    """The pool whose pods answer for the index; its Service points there."""

    kind: Kind
    name: str


class Previous(_Struct, frozen=True):
    """The pool the index was moved away from, which keeps it a little longer: connections are still open."""

    kind: Kind
    name: str
    until: datetime | None = None
    """Not known before the Service of the index has been turned."""


class IndexStatus(_Struct, frozen=True):
    """What is true of a CosineIndex."""

    observed_generation: int = 0
    url: str | None = None
    selector: str | None = None
    replicas: int = 0
    ready_replicas: int = 0
    loaded_replicas: int = 0
    loaded_pods: str = "0/0"
    serving: Serving | None = None
    previous: Previous | None = None
    loaded: Loaded | None = None
    last_failure: LastFailure | None = None
    conditions: tuple[Condition, ...] = ()


class ServerStatus(_Struct, frozen=True):
    """What is true of a CosineServer."""

    observed_generation: int = 0
    selector: str | None = None
    replicas: int = 0
    ready_replicas: int = 0
    indexes: int = 0
    loaded_indexes: str = "0/0"
    configuration_hash: str | None = None
    conditions: tuple[Condition, ...] = ()


class CosineIndex(_Struct, frozen=True):
    """A named matrix to be searched."""

    metadata: Metadata
    spec: IndexSpec
    status: IndexStatus = IndexStatus()


class CosineServer(_Struct, frozen=True):
    """Pods that serve the indexes which name it."""

    metadata: Metadata
    spec: CosineServerSpec = CosineServerSpec()
    status: ServerStatus = ServerStatus()


_Resource = TypeVar("_Resource", CosineIndex, CosineServer)


def parse_index(obj: Mapping[str, Any]) -> CosineIndex:
    """A stored object as the API server sends it. Raises InvalidResource."""
    return _parse(obj, CosineIndex)


def parse_server(obj: Mapping[str, Any]) -> CosineServer:
    """A stored object as the API server sends it. Raises InvalidResource."""
    return _parse(obj, CosineServer)


def _parse(obj: Mapping[str, Any], kind: type[_Resource]) -> _Resource:
    try:
        return msgspec.convert(obj, kind)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `$")
        raise InvalidResource(path.strip("`.") or kind.__name__, reason) from None
