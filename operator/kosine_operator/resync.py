"""Lists everything, at the start and then every so often: the net under the watch.

Nothing is acted on before the first complete round: a server whose indexes are not known yet would drop them
all. Every later round heals what events did not tell, has every pool looked at again, and notices a watch
that is stuck (`Inventory.unheard_for`) and kinds that came or went with their CRDs. Whatever the watch missed
is known within one interval, as long as the API server answers.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from kosine_operator.api_errors import ApiError, Forbidden, NotFound
from kosine_operator.kinds import CHILDREN, MANAGED_BY, OPTIONAL, POD, RESOURCES, SERVED
from kosine_operator.render import Capabilities
from kosine_operator.render.metadata import MANAGER
from kosine_operator.routing import all_pools
from kosine_operator.work_queue import Backoff

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from kosine_operator.cluster import Cluster
    from kosine_operator.inventory import Changed, Inventory
    from kosine_operator.kinds import Kind
    from kosine_operator.pools import PoolKey

__all__ = ("SELECTOR", "Resync", "selectors")

SELECTOR = f"{MANAGED_BY}={MANAGER}"
"""Of everything that is ours, pods included; the API server filters."""
_PAUSE = (0.8, 0.95)
"""Between rounds, in intervals: what is left of one is for the round itself."""


def selectors(optional: frozenset[Kind]) -> Mapping[Kind, str | None]:
    """What to list and watch, and the label selector of each kind."""
    ours = (*SERVED, POD, *(kind for kind in OPTIONAL if kind in optional))
    return dict.fromkeys(RESOURCES) | dict.fromkeys(ours, SELECTOR)


class Resync:
    """`changed` hears of what a round found different, `again` of every pool and of when to look at it."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        inventory: Inventory,
        namespaces: tuple[str | None, ...],
        interval: float,
        rng: random.Random,
        changed: Callable[[Changed], None],
        again: Callable[[PoolKey, float], None],
    ) -> None:
        self._cluster = cluster
        self._inventory = inventory
        self._namespaces = namespaces
        self._interval = interval
        self._rng = rng
        self._changed = changed
        self._again = again
        self._backoff = Backoff(first=1.0, longest=15.0)
        self._log = structlog.get_logger(__name__)
        self.optional: frozenset[Kind] = frozenset()
        """The kinds that not every cluster has and this one does."""

    @property
    def capabilities(self) -> Capabilities:
        """The same, as `render` wants to know it."""
        names = {kind.name for kind in self.optional}
        return Capabilities(
            service_monitor="ServiceMonitor" in names,
            http_route="HTTPRoute" in names,
            scaled_object="ScaledObject" in names,
        )

    async def first(self) -> None:
        """Come back once everything is known, however long that takes."""
        await self._complete()
        self._log.info("synced", objects=sum(1 for kind in CHILDREN for _ in self._inventory.refs(kind)))
        for key in all_pools(self._inventory):
            self._again(key, 0.0)

    async def run(self) -> None:
        """Another round every interval until cancelled; returns where the optional kinds are others now."""
        known = self.optional
        while self.optional == known:
            await asyncio.sleep(self._interval * self._rng.uniform(*_PAUSE))
            await self._complete()
            for key in all_pools(self._inventory):
                self._again(key, self._rng.uniform(0.0, self._interval / 2))

    async def _complete(self) -> None:
        failures = 0
        while not await self._round():
            failures += 1
            await asyncio.sleep(self._backoff.after(failures))

    async def _round(self) -> bool:
        try:
            self.optional = await self._cluster.served(OPTIONAL)
            for kind, selector in selectors(self.optional).items():
                for namespace in self._namespaces:
                    await self._list(kind, namespace, selector)
        except NotFound as error:
            self._log.warning("kind_missing", detail=f"{error.message}; are the CRDs of kosine installed?")
        except Forbidden as error:
            self._log.warning("list_forbidden", detail=f"{error.message}; see rbac-rules.yaml of the chart")
        except ApiError as error:
            self._log.warning("list_failed", detail=error.message)
        else:
            return True
        return False

    async def _list(self, kind: Kind, namespace: str | None, selector: str | None) -> None:
        listing = await self._cluster.list(kind, namespace, selector=selector)
        changes = self._inventory.replace(kind, namespace, listing.objects, version=listing.version)
        for change in changes:
            self._changed(change)
