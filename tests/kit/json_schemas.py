"""JSON schemas of every kind that kosine's manifests have, in files of the names that kubeconform looks for.

Those of Kubernetes are what kubernetes-validate brings along; those of custom resources are made of their
CRDs and closed, as for an API server that validates strictly: a field that nobody declared is an error.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ("CRD_FILES", "KUBERNETES_FILES", "crd_schemas", "kubernetes_schemas")

KUBERNETES_FILES = "{{.ResourceKind}}{{.KindSuffix}}.json"
CRD_FILES = "{{.ResourceKind}}-{{.Group}}-{{.ResourceAPIVersion}}.json"


def kubernetes_schemas(folder: Path, minor: str) -> None:
    """Write those of Kubernetes `minor`, such as 1.37, to a new folder."""
    folder.mkdir()
    brought = Path(str(files("kubernetes_validate"))) / f"kubernetes-json-schema/v{minor}.0-local-strict"
    shared = (brought / "_definitions.json").as_uri()
    for schema in brought.glob("*-*.json"):
        # They name what they share by a path on kubernetes.io.
        text = schema.read_text(encoding="utf-8").replace('"/api/_definitions.json#', f'"{shared}#')
        (folder / schema.name).write_text(text, encoding="utf-8")


def crd_schemas(folder: Path, definitions: Iterable[dict[str, Any]]) -> None:
    """Write those of every version of each CRD to a new folder."""
    folder.mkdir()
    for definition in definitions:
        spec = definition["spec"]
        for version in spec["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            known = {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
            }
            whole = _closed({**schema, "properties": known | schema["properties"]})
            name = f"{spec['names']['kind'].lower()}-{spec['group']}-{version['name']}.json"
            (folder / name).write_text(json.dumps(whole), encoding="utf-8")


def _closed(schema: Any) -> Any:
    """The schema, where no object with known fields lets others pass unless it says so."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    below = {key: _closed(value) for key, value in schema.items()}
    has_fields = isinstance(schema.get("properties"), dict)  # and is not the list of fields, one of that name
    if not has_fields or "x-kubernetes-preserve-unknown-fields" in schema:
        return below
    return {"additionalProperties": False, **below}
