"""Services: one per index under its name, whichever pool serves it, and one of a shared server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kosine_operator.pools import pool_of, served_by
from kosine_operator.render.container import PORT_NAME
from kosine_operator.render.metadata import index_metadata, pool_metadata, selector
from kosine_operator.resources import INDEX_KIND, Service

if TYPE_CHECKING:
    from kosine_operator.pools import Pool
    from kosine_operator.render.model import Manifest
    from kosine_operator.resources import CosineIndex

__all__ = ("SERVICE_PORT", "services")

SERVICE_PORT = 80


def services(pool: Pool) -> list[Manifest]:
    """The Services that lead to the pods of `pool`."""
    own = pool.server.service or Service()
    if pool.key.kind == INDEX_KIND:
        return [_of_index(pool, index, own) for index in pool.indexes if _leads_here(pool, index)]
    shared = _service(pool, pool_metadata(pool), own)
    return [
        shared,
        *(_of_index(pool, index, Service()) for index in pool.indexes if _leads_here(pool, index)),
    ]


def _leads_here(pool: Pool, index: CosineIndex) -> bool:
    """Whether clients of the index are sent here: not before it is loaded here, where it was elsewhere."""
    serving = served_by(index)
    return serving == pool.key if serving is not None else pool_of(index) == pool.key


def _of_index(pool: Pool, index: CosineIndex, service: Service) -> Manifest:
    return _service(pool, index_metadata(index), service)


def _service(pool: Pool, metadata: Manifest, service: Service) -> Manifest:
    if service.annotations:
        metadata = {**metadata, "annotations": dict(service.annotations)}
    port = {"name": PORT_NAME, "port": SERVICE_PORT, "targetPort": PORT_NAME, "protocol": "TCP"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"type": service.type, "selector": selector(pool), "ports": [port]},
    }
