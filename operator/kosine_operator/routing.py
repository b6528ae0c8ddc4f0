"""Which pools have to be looked at again when an object changes. Pure.

Too many is cheap and too few is a defect, so whatever an object says, before or after the change, counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kosine_operator.kinds import INDEX, SERVER, Ref
from kosine_operator.pools import PoolKey
from kosine_operator.render.metadata import POOL_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kosine_operator.inventory import Changed, Inventory
    from kosine_operator.resources import Kind

__all__ = ("all_pools", "concerned", "pools_of_index")

_KINDS: dict[str, Kind] = {"cosineindex": "CosineIndex", "cosineserver": "CosineServer"}


def concerned(change: Changed, inventory: Inventory) -> frozenset[PoolKey]:
    """The pools that may have to change with this object."""
    states = [obj for obj in (change.before, change.after) if obj is not None]
    return frozenset(key for obj in states for key in _pools(change.ref, obj, inventory))


def all_pools(inventory: Inventory) -> frozenset[PoolKey]:
    """Every pool that a resource asks for, is served by, or was moved away from."""
    servers = {PoolKey(ref.namespace, "CosineServer", ref.name) for ref in inventory.refs(SERVER)}
    found = ((ref, inventory.get(ref)) for ref in inventory.refs(INDEX))
    indexes = {key for ref, obj in found if obj is not None for key in pools_of_index(ref, obj)}
    return frozenset(servers | indexes)


def pools_of_index(ref: Ref, index: Mapping[str, Any]) -> Iterator[PoolKey]:
    """Its own, the one it asks for, the one that answers for it, and the one it is leaving."""
    yield PoolKey(ref.namespace, "CosineIndex", ref.name)
    asked = _mapping(_mapping(index.get("spec")).get("serverRef")).get("name")
    if isinstance(asked, str):
        yield PoolKey(ref.namespace, "CosineServer", asked)
    status = _mapping(index.get("status"))
    for field in ("serving", "previous"):
        named = _mapping(status.get(field))
        if named.get("kind") in ("CosineIndex", "CosineServer") and isinstance(named.get("name"), str):
            yield PoolKey(ref.namespace, named["kind"], named["name"])


def _pools(ref: Ref, obj: Mapping[str, Any], inventory: Inventory) -> Iterator[PoolKey]:
    if ref.kind is INDEX:
        yield from pools_of_index(ref, obj)
    elif ref.kind is SERVER:
        yield PoolKey(ref.namespace, "CosineServer", ref.name)
    else:
        yield from _labelled(ref, obj)
        yield from _owned(ref, obj, inventory)


def _labelled(ref: Ref, obj: Mapping[str, Any]) -> Iterator[PoolKey]:
    kind, _, name = _mapping(obj["metadata"].get("labels")).get(POOL_LABEL, "").partition(".")
    if kind in _KINDS and name:
        yield PoolKey(ref.namespace, _KINDS[kind], name)


def _owned(ref: Ref, obj: Mapping[str, Any], inventory: Inventory) -> Iterator[PoolKey]:
    for owner in obj["metadata"].get("ownerReferences", ()):
        if owner["kind"] == "CosineServer":
            yield PoolKey(ref.namespace, "CosineServer", owner["name"])
        elif owner["kind"] == "CosineIndex":
            index = Ref(INDEX, ref.namespace, owner["name"])
            yield from pools_of_index(index, inventory.get(index) or {})


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
