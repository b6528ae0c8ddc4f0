"""Makes the cluster what was rendered: applies what differs, deletes what is no longer wanted, and no more.

What was applied once and is still as the API server answered then is not applied again, so a cluster at rest
sees no request at all; whatever anybody changes of it differs, and is. Only what the pool's owner owns is
ever touched: an object of somebody else that has our name is left alone and reported.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from kosine_operator.api_errors import ApiError, Conflict, NotFound, Refused
from kosine_operator.kinds import BY_NAME, CHILDREN, MANAGED_BY, Kind, Ref
from kosine_operator.render.metadata import MANAGER, POOL_LABEL
from kosine_operator.status import ApplyFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from kosine_operator.cluster import Cluster
    from kosine_operator.inventory import Inventory
    from kosine_operator.pools import PoolKey

__all__ = ("Applier", "Foreign")

_DEPLOYMENT = BY_NAME["Deployment"]
_COUNTED = ("managedFields", "resourceVersion", "generation", "creationTimestamp")
_REVISION = "deployment.kubernetes.io/revision"


class Foreign(ApiError):
    """An object with the name of one of ours belongs to somebody else."""

    reason = "name_conflict"


@dataclass(slots=True)
class _Settled:
    """What was applied, and what the object was then; both as digests."""

    manifest: bytes
    content: bytes


@dataclass(slots=True)
class Applier:
    """Remembers what it applied, for as long as the process lives."""

    cluster: Cluster
    inventory: Inventory
    wrote: Callable[[Kind, str], None]
    _settled: dict[Ref, _Settled] = field(default_factory=dict)

    async def apply(
        self, manifests: Iterable[Mapping[str, Any]], *, checked_first: bool
    ) -> ApplyFailure | None:
        """Bring about every manifest that can be; why the first that cannot is refused, else None.

        `checked_first`: a Deployment is tried before anything is changed, for it has parts that people wrote.
        Raises ApiError for whatever may go well another time.
        """
        wanted = [(ref_of_manifest(manifest), manifest) for manifest in manifests]
        if checked_first:
            failures = [
                await self._tried(ref, manifest) for ref, manifest in wanted if ref.kind is _DEPLOYMENT
            ]
            if any(failures):
                return next(failure for failure in failures if failure is not None)
        failures = [await self._attempt(ref, manifest) for ref, manifest in wanted]
        return next((failure for failure in failures if failure is not None), None)

    async def prune(self, key: PoolKey, *, owner_uid: str, keep: Iterable[Mapping[str, Any]]) -> None:
        """Delete what carries the pool's label and the owner's uid and is not kept. Raises ApiError."""
        kept = {ref_of_manifest(manifest) for manifest in keep}
        for ref, obj in list(self._labelled(key)):
            if ref in kept or not _owned_by(obj, owner_uid) or "deletionTimestamp" in obj["metadata"]:
                continue
            await self.cluster.delete(ref, uid=obj["metadata"]["uid"])
            self._settled.pop(ref, None)
            self.wrote(ref.kind, "delete")
            _log(ref).info("child_deleted")

    async def annotate(self, pod: Ref, annotations: Mapping[str, str]) -> None:
        """Give a pod these annotations where it lacks them. Raises ApiError; not where it is gone."""
        live = self.inventory.get(pod)
        if live is None or annotations.items() <= live["metadata"].get("annotations", {}).items():
            return
        with contextlib.suppress(NotFound, Conflict):
            answer = await self.cluster.annotate(pod, annotations, uid=live["metadata"]["uid"])
            self.inventory.put(pod.kind, answer)
            self.wrote(pod.kind, "annotate")

    def forget(self, key: PoolKey) -> None:
        """The pool is gone; so is what was known of it."""
        for ref, _ in self._labelled(key):
            self._settled.pop(ref, None)

    def _labelled(self, key: PoolKey) -> Iterator[tuple[Ref, Mapping[str, Any]]]:
        for kind in CHILDREN:
            for obj in self.inventory.all(kind, key.namespace):
                if obj["metadata"].get("labels", {}).get(POOL_LABEL) == key.label:
                    yield Ref(kind, key.namespace, obj["metadata"]["name"]), obj

    async def _tried(self, ref: Ref, manifest: Mapping[str, Any]) -> ApplyFailure | None:
        if self._is_settled(ref, manifest):
            return None
        try:
            await self.cluster.validate(ref, manifest)
        except Refused as error:
            return ApplyFailure(reason="InvalidPodTemplate", message=error.message)
        return None

    async def _attempt(self, ref: Ref, manifest: Mapping[str, Any]) -> ApplyFailure | None:
        if self._is_settled(ref, manifest):
            return None
        try:
            await self._apply(ref, manifest)
        except Foreign as error:
            return ApplyFailure(reason="NameConflict", message=error.message)
        except Refused as error:
            return ApplyFailure(reason="Rejected", message=error.message)
        return None

    async def _apply(self, ref: Ref, manifest: Mapping[str, Any]) -> None:
        # Not known may mean: its labels were stripped, or it is somebody else's.
        live = self.inventory.get(ref) or await self.cluster.get(ref)
        if live is not None and not _is_ours(live, _owner_of(manifest)):
            raise Foreign(f"{ref} exists and is not ours: rename the resource, or delete that object")
        uid = None if live is None else live["metadata"]["uid"]
        obj = await self.cluster.apply(ref, manifest, uid=uid)
        self.inventory.put(ref.kind, obj)
        self._settled[ref] = _Settled(manifest=_digest(manifest), content=_digest(_content(obj)))
        if live is None or obj["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]:
            self.wrote(ref.kind, "apply")
            _log(ref).info("child_applied", created=live is None)

    def _is_settled(self, ref: Ref, manifest: Mapping[str, Any]) -> bool:
        settled, live = self._settled.get(ref), self.inventory.get(ref)
        return (
            settled is not None
            and live is not None
            and "deletionTimestamp" not in live["metadata"]
            and settled.manifest == _digest(manifest)
            and settled.content == _digest(_content(live))
        )


def ref_of_manifest(manifest: Mapping[str, Any]) -> Ref:
    """Which object a manifest is about."""
    metadata = manifest["metadata"]
    return Ref(BY_NAME[manifest["kind"]], metadata["namespace"], metadata["name"])


def _owner_of(manifest: Mapping[str, Any]) -> str:
    return str(manifest["metadata"]["ownerReferences"][0]["uid"])


def _owned_by(obj: Mapping[str, Any], uid: str) -> bool:
    return any(owner["uid"] == uid for owner in obj["metadata"].get("ownerReferences", ()))


def _is_ours(obj: Mapping[str, Any], uid: str) -> bool:
    """Owned by `uid`; or by nobody, since somebody removed that, and still labelled as ours."""
    labels = obj["metadata"].get("labels", {})
    orphaned = not obj["metadata"].get("ownerReferences") and labels.get(MANAGED_BY) == MANAGER
    return orphaned or _owned_by(obj, uid)


def _content(obj: Mapping[str, Any]) -> dict[str, Any]:
    """What somebody may have changed of it; not what the server counts, nor what controllers observe."""
    metadata = {name: value for name, value in obj["metadata"].items() if name not in _COUNTED}
    annotations = obj["metadata"].get("annotations", {}).items()
    metadata["annotations"] = {name: value for name, value in annotations if name != _REVISION}
    rest = {name: value for name, value in obj.items() if name not in ("apiVersion", "kind", "status")}
    return {**rest, "metadata": metadata}


def _digest(obj: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(msgspec.json.encode(obj, order="deterministic")).digest()


def _log(ref: Ref) -> Any:
    return structlog.get_logger(__name__).bind(kind=ref.kind.name, namespace=ref.namespace, name=ref.name)
