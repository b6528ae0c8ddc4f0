"""What the API server said last of every object that the operator cares for.

Three sources write here: watch events, complete lists, and the answers to the operator's own writes. They
come in any order, twice, late, or not at all, so nothing is taken that is older than what is known: resource
versions of a kind grow with every write. A list also tells what has vanished; a watch does not always, since
it may have been away (that is why this is not a `kopf.index`, which keeps such objects for ever). A complete
list after the last change leaves exactly the truth here, whatever happened before.

A list that shows what the watch has not told within some time proves the watch to be stuck: `unheard_for`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kosine_operator.kinds import BY_NAME, POD, Ref

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from kosine_operator.kinds import Kind

__all__ = ("Changed", "Inventory", "ref_of", "version_of")

_DEPLOYMENT = BY_NAME["Deployment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """One object that is not as it was; `before` or `after` is None where there was or is none."""

    ref: Ref
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


class Inventory:
    """Objects by kind, namespace and name. `now` tells the seconds of `unheard_for`."""

    def __init__(self, *, now: Callable[[], float]) -> None:
        self._now = now
        self._objects: dict[tuple[Kind, str], dict[str, Mapping[str, Any]]] = {}
        self._vanished: dict[Ref, int] = {}
        """At which resource version an object went, until a list is newer than that."""
        self._heard: dict[Ref, int] = {}
        """The newest resource version that the watch told."""
        self._unheard: dict[Ref, tuple[int, float]] = {}
        """Versions that only a list told, and when the first such list came."""
        self._listed_at = now()

    def get(self, ref: Ref) -> Mapping[str, Any] | None:
        """The object as last known."""
        return self._objects.get((ref.kind, ref.namespace), {}).get(ref.name)

    def all(self, kind: Kind, namespace: str) -> Iterable[Mapping[str, Any]]:
        """Every object of a kind in a namespace."""
        return self._objects.get((kind, namespace), {}).values()

    def refs(self, kind: Kind) -> Iterator[Ref]:
        """Every object of a kind."""
        for (stored, namespace), objects in self._objects.items():
            if stored is kind:
                yield from (Ref(kind, namespace, name) for name in objects)

    def hear(self, kind: Kind, obj: Mapping[str, Any], *, deleted: bool = False) -> Changed | None:
        """A watch event; None where it told nothing new."""
        ref, version = ref_of(kind, obj), version_of(obj)
        self._heard[ref] = max(version, self._heard.get(ref, 0))
        if (unheard := self._unheard.get(ref)) is not None and unheard[0] <= version:
            del self._unheard[ref]
        if not deleted:
            return self.put(kind, obj)
        self._heard.pop(ref, None)
        return self._vanish(ref, version)

    def put(self, kind: Kind, obj: Mapping[str, Any]) -> Changed | None:
        """An object as the server answered it; None where that was known, or is outdated."""
        ref, version = ref_of(kind, obj), version_of(obj)
        before = self.get(ref)
        known = self._vanished.get(ref, 0) if before is None else version_of(before)
        if version <= known:
            return None
        self._objects.setdefault((kind, ref.namespace), {})[ref.name] = _trimmed(kind, obj)
        self._vanished.pop(ref, None)
        return Changed(ref=ref, before=before, after=self.get(ref))

    def replace(
        self, kind: Kind, namespace: str | None, objects: Iterable[Mapping[str, Any]], *, version: int
    ) -> list[Changed]:
        """A complete list as of resource version `version`, of one namespace or of all; what it changed."""
        listed = {ref_of(kind, obj): obj for obj in objects}
        changes = [self.put(kind, obj) for obj in listed.values()]
        for ref in [ref for ref in self.refs(kind) if namespace in (None, ref.namespace)]:
            known = self.get(ref)
            if ref not in listed and known is not None and version_of(known) <= version:
                changes.append(self._vanish(ref, version))
                self._heard.pop(ref, None)
        self._vanished = {
            ref: at for ref, at in self._vanished.items() if ref.kind is not kind or at > version
        }
        self._note_unheard(kind, listed)
        return [change for change in changes if change is not None]

    def unheard_for(self) -> float:
        """Seconds between the first and the last list that showed what the watch has still not told.

        While lists fail too, nothing is known about the watch, and this does not grow.
        """
        return max((self._listed_at - since for _, since in self._unheard.values()), default=0.0)

    def _note_unheard(self, kind: Kind, listed: Mapping[Ref, Mapping[str, Any]]) -> None:
        self._listed_at = self._now()
        for ref in [ref for ref in self._unheard if ref.kind is kind and self.get(ref) is None]:
            del self._unheard[ref]
        for ref, obj in listed.items():
            version = version_of(obj)
            if version > self._heard.get(ref, 0) and ref not in self._unheard:
                self._unheard[ref] = (version, self._listed_at)

    def _vanish(self, ref: Ref, version: int) -> Changed | None:
        before = self.get(ref)
        if before is not None and version_of(before) > version:
            return None
        self._vanished[ref] = max(version, self._vanished.get(ref, 0))
        if before is None:
            return None
        del self._objects[ref.kind, ref.namespace][ref.name]
        return Changed(ref=ref, before=before, after=None)


def ref_of(kind: Kind, obj: Mapping[str, Any]) -> Ref:
    """Which object this is."""
    metadata = obj["metadata"]
    return Ref(kind, metadata["namespace"], metadata["name"])


def version_of(obj: Mapping[str, Any]) -> int:
    """Resource version, comparable within a kind."""
    return int(obj["metadata"]["resourceVersion"])


def _trimmed(kind: Kind, obj: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without what nobody here reads and what is most of an object's memory."""
    if kind is _DEPLOYMENT:  # its managedFields tell whether an autoscaler owns the replicas
        return obj
    metadata = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    if kind is POD:
        return {"metadata": metadata, "status": obj.get("status", {})}
    return {**obj, "metadata": metadata}
