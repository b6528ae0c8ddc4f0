"""Writes the status of resources and tells transitions as Kubernetes Events, where anything changed."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from kosine_operator.api_errors import ApiError, Conflict, NotFound
from kosine_operator.kinds import EVENT
from kosine_operator.status import transitions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kosine_operator.cluster import Cluster
    from kosine_operator.inventory import Changed, Inventory
    from kosine_operator.kinds import Kind, Ref
    from kosine_operator.status import Transition

__all__ = ("Reporter",)

_COMPONENT = "kosine.dev/operator"
_LONGEST_NOTE = 1000


@dataclass(frozen=True, slots=True)
class Reporter:
    """`changed` hears of every status written: what is done next may follow from it."""

    cluster: Cluster
    inventory: Inventory
    identity: str
    wrote: Callable[[Kind, str], None]
    changed: Callable[[Changed], None]

    async def report(self, ref: Ref, resource: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        """Make `status` the status of that very resource. Raises ApiError; not where it is gone meanwhile."""
        previous = resource.get("status")
        if status == previous:
            return
        try:
            written = await self.cluster.apply_status(ref, status, uid=resource["metadata"]["uid"])
        except (NotFound, Conflict):
            return
        self.wrote(ref.kind, "status")
        if (change := self.inventory.put(ref.kind, written)) is not None:
            self.changed(change)
        for transition in transitions(previous, status):
            await self._tell(ref, resource, transition)

    async def _tell(self, ref: Ref, resource: Mapping[str, Any], transition: Transition) -> None:
        log = structlog.get_logger(__name__).bind(
            kind=ref.kind.name, namespace=ref.namespace, name=ref.name, condition=transition.type
        )
        log.info(
            "condition_changed",
            status=transition.status,
            reason=transition.reason,
            message=transition.message,
        )
        try:
            await self.cluster.create(EVENT, self._event(ref, resource, transition))
        except ApiError as error:
            # The condition says the same and stays; an Event is for whoever happens to look.
            log.warning("event_not_written", detail=error.message)

    def _event(self, ref: Ref, resource: Mapping[str, Any], transition: Transition) -> dict[str, Any]:
        now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.name,
            "metadata": {"generateName": f"{ref.name}-", "namespace": ref.namespace},
            "eventTime": now,
            "type": "Warning" if transition.warning else "Normal",
            "reason": transition.reason,
            "action": f"{transition.type}{transition.status}",
            "note": f"{transition.type}={transition.status}: {transition.message}"[:_LONGEST_NOTE],
            "reportingController": _COMPONENT,
            "reportingInstance": self.identity,
            "regarding": {
                "apiVersion": ref.kind.api_version,
                "kind": ref.kind.name,
                "namespace": ref.namespace,
                "name": ref.name,
                "uid": resource["metadata"]["uid"],
                "resourceVersion": resource["metadata"]["resourceVersion"],
            },
        }
