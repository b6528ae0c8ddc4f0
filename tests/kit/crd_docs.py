"""Fields of the CRDs as tables for docs/resources.md."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.kit.crds import fields, schema

if TYPE_CHECKING:
    from tests.kit.crds import Field

__all__ = ("HEAD", "field_rows")

HEAD = ("field", "value", "default", "change", "meaning")


def field_rows(name: str) -> list[tuple[str, ...]]:
    """The rows of a block: `index` without its inline server, or `server`."""
    kind = {"index": "CosineIndex", "server": "CosineServer"}[name]
    every = fields(schema(kind, "spec"), "spec")
    return [_row(field) for field in every if not field.path.startswith("spec.server.") and _is_shown(field)]


def _is_shown(field: Field) -> bool:
    return field.is_leaf or field.path == "spec.server"


def _row(field: Field) -> tuple[str, ...]:
    meaning, change = _split(field.schema["description"])
    default = field.schema.get("default")
    shown = "required" if field.required and default is None else _code(default)
    return f"`{field.path.removeprefix('spec.')}`", _value(field.schema), shown, change, meaning


def _split(description: str) -> tuple[str, str]:
    """The meaning, and what a change takes: the last sentence."""
    meaning, _, change = description.rstrip(".").rpartition(". ")
    return f"{meaning}.", change.replace("Hot", "hot").replace("Rollout", "rollout")


def _value(told: dict[str, Any]) -> str:
    if "enum" in told:
        return ", ".join(_code(choice) for choice in told["enum"])
    if told.get("x-kubernetes-int-or-string"):
        return "a number or a percentage"
    if told["type"] == "string":
        return _text(told)
    return {
        "boolean": "true or false",
        "integer": f"a whole number from {told.get('minimum')} to {told.get('maximum')}",
        "array": f"a list of at most {told.get('maxItems')}",
        "object": "a mapping"
        if "additionalProperties" in told or not told.get("properties")
        else "a section",
    }[told["type"]]


def _text(told: dict[str, Any]) -> str:
    for rule in told.get("x-kubernetes-validations", []):
        if (found := re.fullmatch(r"expected (a (?:duration|size) from .*)", rule["message"])) is not None:
            return found[1]
    return "a URI" if "x-kubernetes-validations" in told else f"text of at most {told['maxLength']}"


def _code(value: Any) -> str:
    return "" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"
