"""The CRDs and the operator's types say the same, and every field says what a change of it takes."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from kosine import configuration
from kosine.configuration.fields import Setting, settings_of
from kosine.errors import LoadCode
from kosine.settings import GcsSettings, IndexSettings, S3Settings, ServiceSettings, StoresSettings
from kosine.units import Duration, Size
from kosine_operator.quantities import bytes_of, seconds_of
from kosine_operator.resources import GROUP, VERSION, CosineIndex, CosineServer
from kosine_operator.status.conditions import LOAD_REASONS
from tests.kit.crds import KINDS, Field, crd, fields, schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from msgspec import Struct

TYPES: dict[str, type[Struct]] = {"CosineIndex": CosineIndex, "CosineServer": CosineServer}
STORES = {"stores": StoresSettings, "stores.s3": S3Settings, "stores.gcs": GcsSettings}
BOTH = pytest.mark.parametrize("kind", KINDS)
BOUND_OF = {"string": "maxLength", "array": "maxItems", "integer": "minimum", "object": "maxProperties"}
BOUNDS = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern", "enum")


def spec_fields() -> list[Any]:
    return [
        pytest.param(field, id=f"{kind}.{field.path}")
        for kind in KINDS
        for field in fields(schema(kind, "spec"), "spec")
    ]


def typed(kind: str) -> dict[str, Any]:
    """JSON Schema of a type, without references."""
    (root,), definitions = msgspec.json.schema_components([TYPES[kind]], ref_template="{name}")
    found: dict[str, Any] = resolved(root, definitions)
    return found


def resolved(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [resolved(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return resolved(
            definitions[node["$ref"]] | {k: v for k, v in node.items() if k != "$ref"}, definitions
        )
    whole = {key: resolved(value, definitions) for key, value in node.items()}
    choices = [choice for choice in whole.pop("anyOf", []) if choice != {"type": "null"}]
    return whole | choices[0] if len(choices) == 1 else whole


def properties(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    node = node.get("items", node) if isinstance(node.get("items"), dict) else node
    for name, below in node.get("properties", {}).items():
        yield f"{path}.{name}", below
        yield from properties(below, f"{path}.{name}")


def of(kind: str, section: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Properties by path: of the CRD, and of the type."""
    types = typed(kind)["properties"][section]
    return dict(properties(schema(kind, section))), dict(properties(types))


@BOTH
@pytest.mark.parametrize("section", ["spec", "status"])
def test_crd_and_type_have_the_same_fields(kind: str, section: str) -> None:
    """No property without a field, no field without a property, at any depth."""
    in_crd, in_type = of(kind, section)
    assert sorted(in_type) == sorted(in_crd)


@BOTH
def test_what_the_type_bounds_the_crd_bounds_alike(kind: str) -> None:
    """Every bound, choice and pattern of a field is that of its property; the CRD may say more."""
    in_crd, in_type = of(kind, "spec")
    for path, field in in_type.items():
        renamed = {"minProperties": "minLength", "maxProperties": "maxLength"}
        told = {renamed.get(key, key): value for key, value in in_crd[path].items()}
        bounds = {renamed.get(key, key): field[key] for key in (*BOUNDS, *renamed) if key in field}
        said = {key: sorted(v) if isinstance(v := told.get(key), list) else v for key in bounds}
        assert {k: sorted(v) if isinstance(v, list) else v for k, v in bounds.items()} == said, path


@BOTH
def test_what_the_crd_limits_the_type_limits(kind: str) -> None:
    """No number is bounded in the CRD alone."""
    in_crd, in_type = of(kind, "spec")
    for path, told in in_crd.items():
        if told.get("type") == "integer":
            assert told["minimum"] == in_type[path]["minimum"], path
            assert told["maximum"] == in_type[path]["maximum"], path


@BOTH
def test_crd_and_type_have_the_same_defaults(kind: str) -> None:
    """What the API server fills in is what a type would; a field that may be left out has one of the two."""
    in_crd, in_type = of(kind, "spec")
    nothing: tuple[Any, ...] = (None, [], (), {})
    for path, field in in_type.items():
        default = field.get("default")
        assert in_crd[path].get("default") == (None if default in nothing else default), path


@BOTH
@pytest.mark.parametrize("section", ["spec", "status"])
def test_every_string_list_and_map_is_bounded(kind: str, section: str) -> None:
    """Otherwise the cost of rules over it has no bound, and neither has the size of an object."""
    for field in fields(schema(kind, section), section):
        for node in (field.schema, field.schema.get("items"), field.schema.get("additionalProperties")):
            if node is None or node.get("enum") or node.get("format") == "date-time":
                continue
            kind_of_node = node.get("type", "") if "properties" not in node else ""
            assert BOUND_OF.get(kind_of_node, "description") in {*node, "description"}, field.path


@pytest.mark.parametrize("field", spec_fields())
def test_every_field_says_what_a_change_of_it_takes(field: Field) -> None:
    """`kubectl explain` ends with Hot or Rollout; only a section may have both, and then its fields say."""
    assert field.change in ({"Hot", "Rollout"} if field.is_leaf else {"Hot", "Rollout", "mixed"})


@BOTH
def test_a_section_says_what_its_fields_say(kind: str) -> None:
    """Hot and Rollout are of all that is below."""
    every = list(fields(schema(kind, "spec"), "spec"))
    for field in every:
        below = {
            other.change for other in every if other.path.startswith((f"{field.path}.", f"{field.path}["))
        }
        if below and field.change != "mixed":
            assert {field.change} == below, field.path


def test_an_inline_server_is_a_cosineserver() -> None:
    """`spec.server` has the fields and rules of a CosineServer, but for what several indexes share."""
    inline, server = schema("CosineIndex", "spec")["properties"]["server"], schema("CosineServer", "spec")
    for shared in ("defaultIndex", "indexMemoryLimit", "paused"):
        del server["properties"][shared]
    for part in ("properties", "x-kubernetes-validations"):
        assert server[part] == inline[part]


@BOTH
def test_names_are_as_documented(kind: str) -> None:
    """Group, version, short name and category."""
    spec = crd(kind)["spec"]
    version = spec["versions"][0]
    names = spec["names"]
    assert (GROUP, VERSION, kind, ["kosine"]) == (
        spec["group"],
        version["name"],
        names["kind"],
        names["categories"],
    )
    assert [{"CosineIndex": "cidx", "CosineServer": "csrv"}[kind]] == names["shortNames"]
    assert {"status", "scale"} == version["subresources"].keys()


def service_settings() -> Iterator[tuple[str, Setting]]:
    """Fields of the CRD that are settings of the service, by their path."""
    renamed = {
        "uri": "source.uri",
        "ids": "source.ids",
        "masks": "source.masks",
        "layout": "source.layout",
        "check_layout": "source.checkLayout",
        "invalid_rows": "source.invalidRows",
        "credentials": "source.credentials",
    }
    for setting in settings_of(IndexSettings):
        if setting.section is None:
            yield f"spec.{renamed.get(setting.name, camel(setting.name))}", setting
        else:
            yield from (
                (f"spec.{setting.name}.{camel(below.name)}", below) for below in settings_of(setting.section)
            )
    fixed = {"host", "port", "device", "file_roots", "header_timeout", "body_timeout", "send_timeout"}
    # Folders of the pod are where the operator mounts something.
    fixed |= {"cache_dir", "credentials_dir"}
    for place, section in (("process", ServiceSettings), *STORES.items()):
        for setting in settings_of(section):
            if setting.section is None and setting.name not in fixed:
                yield f"spec.server.{place}.{camel(setting.name)}", setting


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return "".join([first, *(word.capitalize() for word in rest)])


@pytest.mark.parametrize(
    ("path", "setting"), [pytest.param(*pair, id=pair[0]) for pair in service_settings()]
)
def test_a_setting_of_the_service_has_its_bounds_in_the_crd(path: str, setting: Setting) -> None:
    """What the API server admits is what the service takes: same choices, same smallest, same largest."""
    field = next(field for field in fields(schema("CosineIndex", "spec"), "spec") if field.path == path)
    assert list(setting.choices) == field.schema.get("enum", [])
    if setting.bounds is not None:
        low, high = (setting.parse(bound) for bound in (setting.bounds.low, setting.bounds.high))
        assert (low, high) == bounds_of(field, setting.kind)


def bounds_of(field: Field, kind: type) -> tuple[float, float]:
    if kind not in {Duration, Size}:
        return field.schema["minimum"], field.schema["maximum"]
    message = field.schema["x-kubernetes-validations"][0]["message"]
    low, high = message.removeprefix("expected a ").split(" from ")[1].split(" to ")
    return (bytes_of(low), bytes_of(high)) if kind is Size else (seconds_of(low), seconds_of(high))


@pytest.mark.parametrize(
    "limits", [("k", "maxK", "k", "max_k"), ("maxRows", "queueRows", "batch.max_rows", "batch.queue_rows")]
)
def test_the_defaults_in_rules_are_those_of_the_service(limits: tuple[str, str, str, str]) -> None:
    """A rule that compares a value with one that was left out knows what the service puts there."""
    small, large, *names = limits
    settings = configuration.parse("indexes: {a: {uri: /a.npy}}").indexes["a"]
    least, most = (operator.attrgetter(name)(settings) for name in names)
    spec = schema("CosineIndex", "spec")
    rules = [*spec["x-kubernetes-validations"], *spec["properties"]["batch"]["x-kubernetes-validations"]]
    expected = f"(has(self.{small}) ? self.{small} : {least}) <= (has(self.{large}) ? self.{large} : {most})"
    assert expected in [rule["rule"] for rule in rules]


def test_reasons_are_of_load_codes() -> None:
    """Every code with a reason of its own exists in the service."""
    assert LOAD_REASONS.keys() <= {code.value for code in LoadCode}
