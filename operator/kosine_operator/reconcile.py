"""Brings one pool to what its resources ask for: look, render, apply, prune, ask the pods, report.

Nothing is remembered from one look to the next that the cluster does not know too, so it does not matter why
a pool is looked at, how often, or where the last look was cut off: each step may be the last that happens,
and the next look goes on from what is there.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from kosine_operator import pools
from kosine_operator.api_errors import Forbidden
from kosine_operator.kinds import BY_NAME, INDEX, POD, SERVER, Ref
from kosine_operator.render import Live, render
from kosine_operator.render.metadata import MANAGER, POOL_LABEL
from kosine_operator.status import (
    ApplyFailure,
    Observed,
    index_status,
    invalid_status,
    rollout_of,
    server_status,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kosine_operator.api_errors import ApiError
    from kosine_operator.applier import Applier
    from kosine_operator.catalogue import Catalogue, View
    from kosine_operator.inventory import Inventory
    from kosine_operator.kinds import Kind
    from kosine_operator.pods import Pods
    from kosine_operator.pools import Pool, PoolKey
    from kosine_operator.render import Capabilities, Defaults, Rendered
    from kosine_operator.reporter import Reporter
    from kosine_operator.resources import InvalidResource
    from kosine_operator.status import PodReport

__all__ = ("CONFIGURATION_ANNOTATION", "Reconciler", "look_again")

CONFIGURATION_ANNOTATION = "kosine.dev/configuration"
"""On a pod: a change of it makes the kubelet look at its ConfigMap now instead of within a minute."""

_CONFIG_MAP, _DEPLOYMENT, _SERVICE = (BY_NAME[name] for name in ("ConfigMap", "Deployment", "Service"))
_CONFIGURATION_KEY = "kosine.yaml"
_SLOWEST_POLL = 10.0


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of applying."""

    failure: ApplyFailure | None = None
    error: ApiError | None = None
    """To be raised once it is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciler:
    """Call it with the key of a pool."""

    inventory: Inventory
    catalogue: Catalogue
    applier: Applier
    reporter: Reporter
    pods: Pods
    defaults: Defaults
    capabilities: Callable[[], Capabilities]
    pending: float
    """Seconds until a pool is looked at again in which something is on its way."""

    async def __call__(self, key: PoolKey) -> float | None:
        """One look; seconds until the next one that no event will ask for, or None. Raises ApiError."""
        view, now = self.catalogue.view(key.namespace), dt.datetime.now(dt.UTC)
        owner = Ref(BY_NAME[key.kind], key.namespace, key.name)
        if (unreadable := view.unreadable.get(owner)) is not None:
            await self._refuse(owner, unreadable, now=now)
            return None
        pool = pools.pool(key, view.indexes, view.servers, now=now)
        if pool is None:
            await self._clear(owner, key)
            return await self._report(key, view, pool=None, rendered=None, observed=Observed(now=now))
        rendered = self._rendered(pool, view)
        outcome = _Outcome() if _is_frozen(pool) else await self._apply(pool, rendered)
        observed = Observed(
            now=now,
            pods=await self._ask(pool, rendered),
            rollout=rollout_of(self._live(_DEPLOYMENT, key)),
            failure=outcome.failure,
            led_here=self._led_here(pool),
        )
        again = await self._report(key, view, pool=pool, rendered=rendered, observed=observed)
        if outcome.error is not None:
            raise outcome.error
        if pool.revisit_at is None:
            return again
        revisit = max(0.0, (pool.revisit_at - now).total_seconds())
        return revisit if again is None else min(again, revisit)

    async def _clear(self, owner: Ref, key: PoolKey) -> None:
        """Delete what a pool leaves behind whose owner lives; the rest is the garbage collector's."""
        resource = self.inventory.get(owner)
        if resource is not None and "deletionTimestamp" not in resource["metadata"]:
            await self.applier.prune(key, owner_uid=resource["metadata"]["uid"], keep=())
        self.applier.forget(key)

    def _rendered(self, pool: Pool, view: View) -> Rendered:
        deployment, config_map = self._live(_DEPLOYMENT, pool.key), self._live(_CONFIG_MAP, pool.key)
        live = Live(
            replicas=None if deployment is None else deployment["spec"].get("replicas"),
            replicas_owned=deployment is not None and _others_own_replicas(deployment),
            configuration=None if config_map is None else config_map.get("data", {}).get(_CONFIGURATION_KEY),
            unreadable=frozenset(ref.name for ref in view.unreadable if ref.kind is INDEX),
        )
        return render(pool, defaults=self.defaults, capabilities=self.capabilities(), live=live)

    async def _apply(self, pool: Pool, rendered: Rendered) -> _Outcome:
        try:
            failure = await self.applier.apply(
                rendered.manifests, checked_first=pool.server.pod_template is not None
            )
            if failure is None and all(refusal.optional for refusal in rendered.refused):
                await self.applier.prune(pool.key, owner_uid=pool.owner.uid, keep=rendered.manifests)
        except Forbidden as error:
            # Somebody has to act: quota, Pod Security, RBAC. They look at the status first.
            return _Outcome(ApplyFailure(reason="Rejected", message=error.message), error)
        return _Outcome(failure)

    async def _ask(self, pool: Pool, rendered: Rendered) -> tuple[PodReport, ...]:
        pods = {
            pod["metadata"]["name"]: pod
            for pod in self.inventory.all(POD, pool.key.namespace)
            if pod["metadata"].get("labels", {}).get(POOL_LABEL) == pool.key.label
        }
        reports = await self.pods.ask(pods.values())
        for report in reports:
            if _is_frozen(pool) or report.configuration_hash in (None, rendered.configuration_hash):
                continue
            await self.applier.annotate(
                Ref(POD, pool.key.namespace, report.pod),
                {CONFIGURATION_ANNOTATION: rendered.configuration_hash},
            )
        return reports

    def _led_here(self, pool: Pool) -> frozenset[str]:
        """Indexes of the pool whose Service leads to its pods by now."""
        names = [index.metadata.name for index in pool.indexes]
        found = {name: self.inventory.get(Ref(_SERVICE, pool.key.namespace, name)) for name in names}
        return frozenset(
            name
            for name, service in found.items()
            if service is not None and service["spec"].get("selector", {}).get(POOL_LABEL) == pool.key.label
        )

    async def _report(
        self, key: PoolKey, view: View, *, pool: Pool | None, rendered: Rendered | None, observed: Observed
    ) -> float | None:
        """Write every status that this pool decides; seconds until one of them may change unnoticed."""
        waits = []
        for index in pools.members(key, view.indexes):
            make = partial(
                index_status,
                index,
                pool=pool,
                acceptance=pools.acceptance(index, pool),
                rendered=rendered,
                observed=observed,
            )
            waits.append(await self._write(Ref(INDEX, key.namespace, index.metadata.name), make, observed))
        for server in view.servers:
            if pool is not None and (key.kind, key.name) == (SERVER.name, server.metadata.name):
                told = partial(server_status, server, pool=pool, rendered=rendered, observed=observed)
                waits.append(await self._write(Ref(SERVER, key.namespace, key.name), told, observed))
        return min((wait for wait in waits if wait is not None), default=None)

    async def _write(self, ref: Ref, make: Callable[..., dict[str, Any]], observed: Observed) -> float | None:
        resource = self.inventory.get(ref)
        if resource is None:
            return None
        status = make(previous=resource.get("status"))
        await self.reporter.report(ref, resource, status)
        return look_again(status, now=observed.now, soon=self.pending)

    async def _refuse(self, ref: Ref, error: InvalidResource, *, now: dt.datetime) -> None:
        """Say that nothing is done; what runs may still be right, so it is left as it is."""
        if (resource := self.inventory.get(ref)) is not None:
            generation = resource["metadata"].get("generation", 0)
            status = invalid_status(resource.get("status"), generation=generation, reason=str(error), now=now)
            await self.reporter.report(ref, resource, status)

    def _live(self, kind: Kind, key: PoolKey) -> Mapping[str, Any] | None:
        """The pool's object of that kind, if it has one."""
        found = self.inventory.get(Ref(kind, key.namespace, key.name))
        labels = {} if found is None else found["metadata"].get("labels", {})
        return found if labels.get(POOL_LABEL) == key.label else None


def _is_frozen(pool: Pool) -> bool:
    """Whether nothing of it may be changed: paused, or refused as a whole."""
    return pool.paused or any(refusal.index is None for refusal in pool.refusals)


def look_again(status: Mapping[str, Any], *, now: dt.datetime, soon: float) -> float | None:
    """When pods may have news that no event tells: the longer it takes, the rarer they are asked.

    What is accepted and neither ready nor on its way waits for a load, which the service retries by itself.
    """
    conditions = {each["type"]: each for each in status.get("conditions", ())}
    if conditions.get("Accepted", {}).get("status") == "False" or not conditions:
        return None
    progressing = conditions.get("Progressing")
    if progressing is not None and progressing["status"] == "True":
        since = dt.datetime.fromisoformat(progressing["lastTransitionTime"])
        return min(_SLOWEST_POLL, max(soon, (now - since).total_seconds() / 10))
    return None if conditions.get("Ready", {}).get("status") == "True" else _SLOWEST_POLL


def _others_own_replicas(deployment: Mapping[str, Any]) -> bool:
    """Whether an autoscaler, or a person with `kubectl scale`, set the replicas last."""
    return any(
        "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in deployment["metadata"].get("managedFields", ())
        if entry["manager"] != MANAGER
    )
