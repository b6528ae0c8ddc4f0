"""What volumes and variables are made of: ConfigMaps, Secrets, tokens, claims, the pod's own fields."""

from __future__ import annotations

import base64
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.kit.control_plane.kubelet.api import ApiRefused
from tests.kit.control_plane.namespaces import NODE_ADDRESS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.kit.control_plane.kubelet.api import Api
    from tests.kit.control_plane.kubelet.resources import (
        ConfigMapSource,
        DownwardSource,
        Pod,
        Projected,
        SecretSource,
        TokenSource,
        Volume,
    )

__all__ = ("MissingReference", "Sources")

Files = dict[str, bytes]


class MissingReference(Exception):
    """A ConfigMap, a Secret, a key in one or a claim is not there, and is not optional."""


@dataclass(slots=True, eq=False)
class Sources:
    """The sources of one pod. Tokens are kept until 80 % of their life is over."""

    api: Api
    pod: Pod
    address: str
    """The pod's."""
    _tokens: dict[str | None, tuple[float, bytes]] = field(default_factory=dict)

    async def files(self, volume: Volume) -> Files | None:
        """The volume's files by relative path; None when it has none of its own: emptyDir."""
        if volume.config_map is not None:
            return await self.config_map(volume.config_map)
        if volume.secret is not None:
            return await self.secret(volume.secret)
        if volume.downward is not None:
            return self._downward(volume.downward)
        if volume.projected is not None:
            return await self._projected(volume.projected)
        return None

    async def folder(self, volume: Volume) -> Path | None:
        """Where the volume is on this machine; None when it is the pod's own."""
        if volume.host_path is not None:
            return Path(volume.host_path.path)
        if volume.persistent_volume_claim is not None:
            return await self._claimed(volume.persistent_volume_claim.claim_name)
        return None

    async def config_map(self, source: ConfigMapSource) -> Files:
        """Its keys and values, or those of its items."""
        found = await self._get("configmaps", source.name, optional=source.optional)
        text = {key: value.encode() for key, value in (found.get("data") or {}).items()}
        binary = {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
        return _selected(text | binary, source)

    async def secret(self, source: SecretSource) -> Files:
        """Its keys and values, or those of its items."""
        found = await self._get("secrets", source.secret_name or source.name, optional=source.optional)
        return _selected({k: base64.b64decode(v) for k, v in (found.get("data") or {}).items()}, source)

    def pod_field(self, path: str) -> str:
        """The downward API's fieldPath."""
        metadata, spec = self.pod.metadata, self.pod.spec
        if entry := re.fullmatch(r"metadata\.(annotations|labels)\['(.+)'\]", path):
            entries = metadata.labels if entry[1] == "labels" else metadata.annotations
            return entries.get(entry[2], "")
        fields = {
            "metadata.name": metadata.name,
            "metadata.namespace": metadata.namespace,
            "metadata.uid": metadata.uid,
            "metadata.labels": _lines(metadata.labels.items()),
            "metadata.annotations": _lines(metadata.annotations.items()),
            "spec.nodeName": spec.node_name,
            "spec.serviceAccountName": spec.service_account_name,
            "status.hostIP": NODE_ADDRESS,
            "status.podIP": self.address,
            "status.podIPs": self.address,
        }
        if path not in fields:
            raise MissingReference(f"fieldPath {path} is none of {', '.join(fields)}")
        return fields[path]

    async def _claimed(self, name: str) -> Path:
        """Pods come to a node once their claims are bound, for which scheduler and binder are there."""
        claim = await self._get("persistentvolumeclaims", name, optional=False)
        volume = claim["spec"]["volumeName"]
        found = await self.api.request("GET", f"/api/v1/persistentvolumes/{volume}")
        if (path := found["spec"].get("hostPath", {}).get("path")) is None:
            raise MissingReference(f"persistentvolume {volume}: only hostPath is known")
        return Path(path)

    def _downward(self, source: DownwardSource) -> Files:
        return {
            item.path: self.pod_field(item.field_ref.field_path).encode()
            for item in source.items
            if item.field_ref is not None
        }

    async def _projected(self, source: Projected) -> Files:
        files: Files = {}
        for projection in source.sources:
            if projection.config_map is not None:
                files |= await self.config_map(projection.config_map)
            if projection.secret is not None:
                files |= await self.secret(projection.secret)
            if projection.downward is not None:
                files |= self._downward(projection.downward)
            if (token := projection.service_account_token) is not None:
                files[token.path] = await self._token(token)
        return files

    async def _token(self, source: TokenSource) -> bytes:
        until, token = self._tokens.get(source.audience, (0.0, b""))
        if time.monotonic() < until:
            return token
        metadata = self.pod.metadata
        wanted = {
            "audiences": [source.audience] if source.audience else None,
            "expirationSeconds": source.expiration_seconds,
            "boundObjectRef": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": metadata.name,
                "uid": metadata.uid,
            },
        }
        account = self.pod.spec.service_account_name
        path = f"/api/v1/namespaces/{metadata.namespace}/serviceaccounts/{account}/token"
        answer = await self.api.request("POST", path, {"spec": wanted})
        token = str(answer["status"]["token"]).encode()
        self._tokens[source.audience] = (time.monotonic() + 0.8 * source.expiration_seconds, token)
        return token

    async def _get(self, kind: str, name: str, *, optional: bool) -> dict[str, Any]:
        try:
            return await self.api.request(
                "GET", f"/api/v1/namespaces/{self.pod.metadata.namespace}/{kind}/{name}"
            )
        except ApiRefused as refused:
            if refused.status != 404:
                raise
            if optional:
                return {}
            raise MissingReference(f'{kind} "{name}" not found') from refused


def _selected(data: Files, source: ConfigMapSource | SecretSource) -> Files:
    if not source.items:
        return data
    missing = [item.key for item in source.items if item.key not in data]
    if missing and not source.optional:
        raise MissingReference(f"references non-existent key: {', '.join(missing)}")
    return {item.path: data[item.key] for item in source.items if item.key in data}


def _lines(entries: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f'{key}="{value}"' for key, value in sorted(entries))
