"""The CRDs as the chart ships them, and their fields one by one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("CRDS", "KINDS", "Field", "crd", "fields", "schema")

CRDS = Path(__file__).parents[2] / "charts/kosine-operator/files/crds"
KINDS = {"CosineIndex": "cosineindexes", "CosineServer": "cosineservers"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One property of a schema, at any depth."""

    path: str
    """`spec.source.uri`; `[]` and `{}` stand for the items of a list or map."""
    schema: dict[str, Any]
    required: bool

    @property
    def change(self) -> Literal["Hot", "Rollout", "mixed"] | None:
        """What its description says of a change."""
        told = self.schema.get("description", "").rsplit(". ", 1)[-1]
        if told.startswith("Hot or Rollout"):
            return "mixed"
        if told.startswith("Hot"):
            return "Hot"
        return "Rollout" if told == "Rollout." else None

    @property
    def is_leaf(self) -> bool:
        """Whether it has no properties of its own."""
        return not _below(self.schema)


def crd(kind: str) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    text = (CRDS / f"{KINDS[kind]}.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def schema(kind: str, section: str) -> dict[str, Any]:
    """The schema of `spec` or `status`."""
    version = crd(kind)["spec"]["versions"][0]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"][section]
    return found


def fields(section: dict[str, Any], path: str) -> Iterator[Field]:
    """Every property below `path`, parents first."""
    required = _object(section).get("required", [])
    for name, below in _below(section).items():
        suffix = {"array": "[]"}.get(below.get("type", ""), "")
        field = Field(path=f"{path}.{name}", schema=below, required=name in required)
        yield field
        yield from fields(below, f"{field.path}{suffix}")


def _below(section: dict[str, Any]) -> dict[str, Any]:
    below: dict[str, Any] = _object(section).get("properties", {})
    return below


def _object(section: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = section["items"] if section.get("type") == "array" else section
    return found
