"""The Kubernetes API, as far as the operator uses it; the only module that imports the client.

Desired state goes out by server-side apply under one field manager: what others own of an object stays
theirs, what we stop rendering of it is removed, and the same apply twice changes nothing. Whatever names an
object that is already known names its uid too, so that a namesake created meanwhile is never touched. Nothing
here retries: every error is raised as one of `api_errors`, and the work queue comes back.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from kosine_operator.api_errors import ApiError, Conflict, NotFound, Unreachable, classify
from kosine_operator.render.metadata import MANAGER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from kosine_operator.kinds import Kind, Ref

__all__ = ("Cluster", "Listing", "open_cluster")

_PAGE = 500
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON = "application/json"

Object = dict[str, Any]


class Listing(msgspec.Struct, frozen=True):
    """Every object of a kind at one moment."""

    objects: list[Object]
    version: int
    """Resource version of that moment."""


class Cluster:
    """One connection pool to one API server; requests take at most `within` seconds each.

    `permit` is awaited before every write.
    """

    def __init__(
        self, client: ApiClient, *, within: float, permit: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._client = client
        self._within = within
        self._permit = permit
        self._timeout = aiohttp.ClientTimeout(total=within, sock_connect=min(within, 5.0))

    def permitted_by(self, permit: Callable[[], Awaitable[None]]) -> Cluster:
        """The same cluster, with another permit."""
        return Cluster(self._client, within=self._within, permit=permit)

    async def list(self, kind: Kind, namespace: str | None, *, selector: str | None) -> Listing:
        """All objects of a namespace, or of all; `selector` is one of labels."""
        objects: list[Object] = []
        query: dict[str, str] = {"limit": str(_PAGE)} | ({"labelSelector": selector} if selector else {})
        while True:
            what = f"list {kind}" + (f" in {namespace}" if namespace else "")
            page = await self._request("GET", _path(kind, namespace), what=what, query=query)
            objects += page["items"]
            if not (token := page["metadata"].get("continue")):
                return Listing(objects, int(page["metadata"]["resourceVersion"]))
            query["continue"] = token

    async def get(self, ref: Ref) -> Object | None:
        """The object, or None."""
        try:
            return await self._request("GET", _path_of(ref), what=f"get {ref}")
        except NotFound:
            return None

    async def apply(self, ref: Ref, manifest: Mapping[str, Any], *, uid: str | None) -> Object:
        """Make the object what `manifest` says, as far as it says; the object as it is then.

        `uid` is that of the object to change, None where it is to be created. Raises Conflict where that
        object is gone or another has its name.
        """
        body = {**manifest, "metadata": {**manifest["metadata"], **({"uid": uid} if uid else {})}}
        return await self._apply(_path_of(ref), body, what=f"apply {ref}")

    async def validate(self, ref: Ref, manifest: Mapping[str, Any]) -> None:
        """What `apply` would raise, without doing it."""
        await self._apply(_path_of(ref), manifest, what=f"check {ref}", query={"dryRun": "All"})

    async def apply_status(self, ref: Ref, status: Mapping[str, Any], *, uid: str) -> Object:
        """Write the whole status of a resource; the resource as it is then."""
        metadata = {"name": ref.name, "namespace": ref.namespace, "uid": uid}
        body = {
            "apiVersion": ref.kind.api_version,
            "kind": ref.kind.name,
            "metadata": metadata,
            "status": status,
        }
        return await self._apply(f"{_path_of(ref)}/status", body, what=f"apply status of {ref}")

    async def annotate(self, ref: Ref, annotations: Mapping[str, str], *, uid: str) -> Object:
        """Merge annotations into an object's own. Raises NotFound or Conflict where it is another one now."""
        return await self._request(
            "PATCH",
            _path_of(ref),
            what=f"annotate {ref}",
            query={"fieldManager": MANAGER},
            body={"metadata": {"annotations": annotations, "uid": uid}},
            content=_MERGE,
        )

    async def delete(self, ref: Ref, *, uid: str) -> None:
        """Delete that very object; well where it is gone, or another has its name."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        with contextlib.suppress(NotFound, Conflict):
            await self._request("DELETE", _path_of(ref), what=f"delete {ref}", body=body, content=_JSON)

    async def create(self, kind: Kind, manifest: Mapping[str, Any]) -> Object:
        """A new object. Raises Conflict where one has its name."""
        namespace = manifest["metadata"]["namespace"]
        return await self._request(
            "POST",
            _path(kind, namespace),
            what=f"create {kind.name} in {namespace}",
            query={"fieldManager": MANAGER},
            body=manifest,
            content=_JSON,
        )

    async def replace(self, ref: Ref, manifest: Mapping[str, Any]) -> Object:
        """Overwrite an object. Raises Conflict where it is not at the manifest's resource version."""
        return await self._request(
            "PUT",
            _path_of(ref),
            what=f"replace {ref}",
            query={"fieldManager": MANAGER},
            body=manifest,
            content=_JSON,
        )

    async def served(self, kinds: Iterable[Kind]) -> frozenset[Kind]:
        """Which of these kinds the API server knows."""
        return frozenset([kind for kind in kinds if kind.plural in await self._plurals(kind)])

    async def _plurals(self, kind: Kind) -> frozenset[str]:
        try:
            found = await self._request("GET", _prefix(kind), what=f"discover {kind.api_version}")
        except NotFound:
            return frozenset()
        return frozenset(resource["name"] for resource in found["resources"])

    async def _apply(
        self, path: str, body: Mapping[str, Any], *, what: str, query: Mapping[str, str] | None = None
    ) -> Object:
        query = {"fieldManager": MANAGER, "force": "true", **(query or {})}
        return await self._request("PATCH", path, what=what, query=query, body=body, content=_APPLY)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        what: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content: str | None = None,
    ) -> Object:
        if method != "GET" and self._permit is not None:
            await self._permit()
        try:
            prepared = await self._client.param_serialize(
                method,
                f"{path}?{urlencode(query)}" if query else path,
                header_params={"Accept": _JSON} | ({"Content-Type": content} if content else {}),
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._client.call_api(*prepared, _request_timeout=self._timeout)
            data = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f"{what}: {str(error) or type(error).__name__}") from error
        if not 200 <= response.status <= 299:  # noqa: PLR2004
            raise classify(response.status, data, response.headers, what=what)
        return _decoded(data, what=what)


@contextlib.asynccontextmanager
async def open_cluster(*, within: float) -> AsyncIterator[Cluster]:
    """The cluster that this pod runs in, or else that of the kubeconfig.

    A request takes at most `within` seconds. Raises ApiError where there is neither.
    """
    configuration = Configuration()
    # Requests go straight to the API server: credentials must not travel through a proxy by accident.
    configuration.client_session_kwargs = {"trust_env": False}
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=configuration)
        else:
            await config.load_kube_config(
                config_file=os.environ.get("KUBECONFIG"), client_configuration=configuration
            )
    except (config.ConfigException, OSError) as error:
        raise ApiError(
            f"no cluster to talk to: {error}; run in a pod with a service account, or set KUBECONFIG"
        ) from error
    async with ApiClient(configuration) as client:
        yield Cluster(client, within=within)


def _decoded(data: bytes, *, what: str) -> Object:
    try:
        return msgspec.json.decode(data, type=Object)
    except msgspec.MsgspecError as error:
        # A proxy, or a connection cut in the middle: says nothing about the request.
        raise Unreachable(f"{what}: the answer is not JSON: {error}") from error


def _prefix(kind: Kind) -> str:
    return f"/{'apis' if kind.group else 'api'}/{kind.api_version}"


def _path(kind: Kind, namespace: str | None) -> str:
    return (
        f"{_prefix(kind)}/namespaces/{quote(namespace)}/{kind.plural}"
        if namespace
        else f"{_prefix(kind)}/{kind.plural}"
    )


def _path_of(ref: Ref) -> str:
    return f"{_path(ref.kind, ref.namespace)}/{quote(ref.name)}"
