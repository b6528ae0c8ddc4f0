"""Names, labels and owners of what is rendered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kosine_operator.pools import OwnerRef
from kosine_operator.resources import GROUP, INDEX_KIND, VERSION

if TYPE_CHECKING:
    from kosine_operator.pools import Pool
    from kosine_operator.resources import CosineIndex

__all__ = ("INDEX_LABEL", "MANAGER", "POOL_LABEL", "index_metadata", "pool_metadata", "selector")

MANAGER = "kosine-operator"
POOL_LABEL = f"{GROUP}/pool"
INDEX_LABEL = f"{GROUP}/index"


def selector(pool: Pool) -> dict[str, str]:
    """Labels that the pods of this pool have and no others; they can never change."""
    return {POOL_LABEL: pool.key.label}


def pool_metadata(pool: Pool) -> dict[str, Any]:
    """Of an object that is the pool's: named and owned like it."""
    labels = {**_labels(pool.key.name), **selector(pool)}
    return _metadata(pool.key.name, pool.key.namespace, labels, pool.owner)


def index_metadata(index: CosineIndex) -> dict[str, Any]:
    """Of an object that is the index's, wherever it is served."""
    meta = index.metadata
    labels = {**_labels(meta.name), INDEX_LABEL: meta.name}
    return _metadata(meta.name, meta.namespace, labels, OwnerRef(INDEX_KIND, meta.name, meta.uid))


def _labels(instance: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "kosine",
        "app.kubernetes.io/instance": instance,
        "app.kubernetes.io/managed-by": MANAGER,
    }


def _metadata(name: str, namespace: str, labels: dict[str, str], owner: OwnerRef) -> dict[str, Any]:
    reference = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
    }
    return {"name": name, "namespace": namespace, "labels": labels, "ownerReferences": [reference]}
