"""The parts of charts/ that something else knows better. `make docs` writes them.

Tables of values in a chart's README come from the comments of its values.yaml: `# -- text` above a key; a
mapping in one line is one row. Definitions of kosine's own settings in values.schema.json come from
`kosine.settings`, so that a misspelt one is refused by `helm install`, by name, and not by the pod. Alerts,
dashboard and crds.yaml of the operator's chart are copies.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kosine.configuration.fields import Setting, settings_of
from kosine.settings import (
    INDEX_NAME_PATTERN,
    MASK_NAME_PATTERN,
    MAX_MASKS,
    DefaultSettings,
    IndexSettings,
    ServiceSettings,
)
from kosine.units import Duration, Size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msgspec import Struct

__all__ = ("CHARTS", "Undocumented", "regenerated", "value_rows")

CHARTS = Path(__file__).parents[2] / "charts"
OPERATOR = "kosine-operator"

_TABLE = re.compile(r"(<!-- generated: values -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_DURATION = r"^[0-9]{1,18}(\.[0-9]{1,18})?(us|ms|s|m|h|d)$"
_SIZE = r"^[0-9]{1,18}(\.[0-9]{1,18})?(B|KiB|MiB|GiB|TiB)$"
_FIXED_BY_THE_CHART = frozenset({"port"})


class Undocumented(Exception):
    """A value without a comment."""


def regenerated(chart: Path) -> dict[Path, str]:
    """Files of `chart` as they should be, by path."""
    readme, schema = chart / "README.md", chart / "values.schema.json"
    table = _values_table((chart / "values.yaml").read_text(encoding="utf-8"))
    text = _TABLE.sub(
        lambda found: f"{found[1]}{table}{found[3]}", readme.read_text(encoding="utf-8"), count=1
    )
    document = json.loads(schema.read_text(encoding="utf-8"))
    if "indexes" in document["properties"]:
        document["definitions"] = {**document["definitions"], **_settings_definitions()}
    return {
        readme: text,
        schema: json.dumps(document, indent=2, ensure_ascii=False) + "\n",
        **(_shared_files(chart) if chart.name == OPERATOR else {}),
    }


def _shared_files(operator: Path) -> dict[Path, str]:
    """What the operator's chart has of others: a chart is a package, and cannot look into another one."""
    shared = (CHARTS / "kosine" / "files" / name for name in ("alerts.yaml", "dashboard.json"))
    copies = {operator / "files" / each.name: each.read_text(encoding="utf-8") for each in shared}
    crds = sorted((operator / "files" / "crds").glob("*.yaml"))
    together = "".join(f"---\n{each.read_text(encoding='utf-8')}" for each in crds)
    return {**copies, operator / "crds.yaml": together}


def value_rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Path, default as JSON and meaning of every value; Undocumented where one has no comment."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    yield from _rows(root, text.splitlines(), prefix="")


def _rows(mapping: yaml.MappingNode, lines: list[str], *, prefix: str) -> Iterator[tuple[str, str, str]]:
    for key, value in mapping.value:
        path = f"{prefix}{key.value}"
        meaning = _comment_above(lines, key.start_mark.line)
        nested = isinstance(value, yaml.MappingNode) and not value.flow_style
        if meaning is not None:
            yield path, _as_json(value), meaning
        if nested and (meaning is None or _has_comments(value, lines)):
            yield from _rows(value, lines, prefix=f"{path}.")
        elif meaning is None:
            raise Undocumented(path)


def _has_comments(mapping: yaml.MappingNode, lines: list[str]) -> bool:
    return any(_comment_above(lines, key.start_mark.line) is not None for key, _ in mapping.value)


def _comment_above(lines: list[str], line: int) -> str | None:
    """The comment that ends right above `line`, joined; None unless it starts with `# -- `."""
    found: list[str] = []
    for text in reversed([each.strip() for each in lines[:line]]):
        if not text.startswith("#"):
            return None
        found.append(text.removeprefix("#").strip())
        if text.startswith("# -- "):
            return " ".join(reversed(found)).removeprefix("-- ")
    return None


def _as_json(node: yaml.Node) -> str:
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        return ""
    return f"`{json.dumps(yaml.safe_load(yaml.serialize(node)), ensure_ascii=False)}`"


def _values_table(text: str) -> str:
    rows = [("value", "default", "meaning"), ("---", "---", "---")]
    rows += [
        (f"`{path}`", default, meaning.replace("|", "\\|")) for path, default, meaning in value_rows(text)
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _settings_definitions() -> dict[str, Any]:
    index = _section(IndexSettings)
    return {
        "indexes": {
            "type": "object",
            "propertyNames": {"pattern": INDEX_NAME_PATTERN},
            "additionalProperties": {**index, "required": ["uri"]},
        },
        "defaults": _section(DefaultSettings),
        "process": _section(ServiceSettings, without=_FIXED_BY_THE_CHART),
    }


def _section(section: type[Struct], *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    known = [setting for setting in settings_of(section) if setting.name not in without]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {setting.name: _setting(setting) for setting in known},
    }


def _setting(setting: Setting) -> dict[str, Any]:
    if setting.section is not None:
        return _section(setting.section)
    kinds, rest = _type(setting)
    described = {"description": setting.meaning} if setting.meaning else {}
    types = [*kinds, *(["null"] if setting.optional else [])]
    return {"type": types[0] if len(types) == 1 else types, **rest, **described}


def _type(setting: Setting) -> tuple[list[str], dict[str, Any]]:
    """JSON types, and what else JSON Schema can say; bounds of durations and sizes are left to kosine."""
    if setting.choices:
        return ["string"], {"enum": [*setting.choices]}
    if issubclass(setting.kind, Duration):
        return ["string", "number"], {"pattern": _DURATION}
    if issubclass(setting.kind, Size):
        return ["string", "integer"], {"pattern": _SIZE}
    if setting.kind is dict:
        named = {"propertyNames": {"pattern": MASK_NAME_PATTERN}, "maxProperties": MAX_MASKS}
        return ["object"], {**named, "additionalProperties": {"type": "string"}}
    bounds = setting.bounds
    within = {"minimum": bounds.low, "maximum": bounds.high} if bounds is not None else {}
    kinds = {bool: "boolean", int: "integer", float: "number"}
    return [kinds.get(setting.kind, "string")], within


if __name__ == "__main__":
    for chart in sorted(path.parent for path in CHARTS.glob("*/Chart.yaml")):
        for path, text in regenerated(chart).items():
            path.write_text(text, encoding="utf-8")
