"""The resources of a namespace as typed values, each parsed once per version."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kosine_operator.inventory import version_of
from kosine_operator.kinds import INDEX, SERVER, Kind, Ref
from kosine_operator.resources import CosineIndex, CosineServer, InvalidResource, parse_index, parse_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kosine_operator.inventory import Inventory

__all__ = ("Catalogue", "View")

_Parsed = CosineIndex | CosineServer | InvalidResource


@dataclass(frozen=True, slots=True)
class View:
    """Everything of one namespace that is not being deleted."""

    indexes: tuple[CosineIndex, ...]
    servers: tuple[CosineServer, ...]
    unreadable: Mapping[Ref, InvalidResource]
    """Stored by an API server whose CRD is not the one this operator was built for."""


@dataclass(slots=True)
class Catalogue:
    """Remembers what it parsed, by version."""

    inventory: Inventory
    _known: dict[tuple[Kind, str], dict[str, tuple[int, _Parsed]]] = field(default_factory=dict)

    def view(self, namespace: str) -> View:
        """As the inventory knows it now."""
        found = {**dict(self._parsed(INDEX, namespace)), **dict(self._parsed(SERVER, namespace))}
        return View(
            indexes=tuple(each for each in found.values() if isinstance(each, CosineIndex)),
            servers=tuple(each for each in found.values() if isinstance(each, CosineServer)),
            unreadable={ref: each for ref, each in found.items() if isinstance(each, InvalidResource)},
        )

    def _parsed(self, kind: Kind, namespace: str) -> Iterator[tuple[Ref, _Parsed]]:
        before, now = self._known.get((kind, namespace), {}), {}
        for obj in self.inventory.all(kind, namespace):
            name, version = obj["metadata"]["name"], version_of(obj)
            known = before.get(name)
            now[name] = known if known is not None and known[0] == version else (version, _parse(kind, obj))
            if "deletionTimestamp" not in obj["metadata"]:
                yield Ref(kind, namespace, name), now[name][1]
        self._known[kind, namespace] = now


def _parse(kind: Kind, obj: Mapping[str, Any]) -> _Parsed:
    try:
        return parse_index(obj) if kind is INDEX else parse_server(obj)
    except InvalidResource as error:
        return error
