"""One view of the declared settings for everybody who needs it: the converter, its messages and the docs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from msgspec import NODEFAULT, Meta, Struct, structs

from kosine.settings import MAX_MASKS, Change, Folders, Located
from kosine.units import Duration, Size, Within

__all__ = ("Setting", "settings_of")

_NOUNS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Duration: "a duration",
    Size: "a size",
}
_EXAMPLES: dict[type, str] = {Duration: " such as 250ms, 30s, 5m", Size: " such as 512MiB"}


_MOST_FOLDERS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One field of a section, or a section within one."""

    name: str
    kind: type
    """bool, int, float, str, Duration, Size, tuple (folders), dict (masks), or the Struct of a section."""
    choices: tuple[str, ...]
    optional: bool
    """Whether null is allowed."""
    required: bool
    default: Any
    meaning: str
    bounds: Within | None
    located: bool
    folders: bool
    change: Change | None

    @property
    def section(self) -> type[Struct] | None:
        """The Struct of its own fields, where it is a section."""
        return self.kind if issubclass(self.kind, Struct) else None

    @property
    def expected(self) -> str:
        """What a message says is allowed: `a duration from 1s to 1d, such as 250ms, 30s, 5m`."""
        if self.choices:
            said = " or ".join(f"`{choice}`" for choice in self.choices)
        elif self.section:
            said = "a mapping of settings"
        elif self.kind is dict:
            said = f"a mapping of up to {MAX_MASKS} names to paths, s3:// or gs:// URLs"
        elif self.located:
            said = "a path, s3:// or gs:// URL"
        elif self.folders:
            said = "a folder or a list of folders" if self.kind is tuple else "a folder"
        else:
            within = f" from {self.bounds.low} to {self.bounds.high}" if self.bounds else ""
            said = f"{_NOUNS[self.kind]}{within}{_EXAMPLES.get(self.kind, '')}"
        return f"{said}, or null" if self.optional else said

    def parse(self, value: object) -> Any:
        """`value` as this setting's type, within its bounds; ValueError or TypeError where it is neither."""
        if value is None and self.optional:
            return None
        parsed = self._typed(value)
        if self.bounds is not None and not self.bounds.allows(parsed, parse=self._number):
            raise ValueError("out of bounds")
        return parsed

    def _typed(self, value: object) -> Any:
        if self.folders and self.kind is tuple:
            return _texts(value)
        if self.kind is dict:
            return _named(value)
        if issubclass(self.kind, Duration | Size):
            return self.kind.parse(value)
        if self.kind is float and type(value) is int:
            return float(value)
        if type(value) is not self.kind or (self.choices and value not in self.choices):
            raise TypeError("another type")
        return value

    def _number(self, bound: object) -> float:
        return self._typed(bound)  # type: ignore[no-any-return]  # a bound is written like a value


@cache
def settings_of(section: type[Struct]) -> tuple[Setting, ...]:
    """The fields of a section in the order of its class."""
    hints = get_type_hints(section, include_extras=True)
    return tuple(_setting(field, hints[field.name]) for field in structs.fields(section))


def _setting(field: structs.FieldInfo, hint: Any) -> Setting:
    bare, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    kind, choices, optional = _analyse(bare)
    default = field.default if field.default is not NODEFAULT else None
    return Setting(
        name=field.name,
        kind=kind,
        choices=choices,
        optional=optional,
        required=field.required,
        default=default if field.default_factory is NODEFAULT else field.default_factory(),
        meaning=next((mark.description or "" for mark in marks if isinstance(mark, Meta)), ""),
        bounds=next((mark for mark in marks if isinstance(mark, Within)), None),
        located=any(isinstance(mark, Located) for mark in marks),
        folders=any(isinstance(mark, Folders) for mark in marks),
        change=next((mark for mark in marks if isinstance(mark, Change)), None),
    )


def _analyse(hint: Any) -> tuple[type, tuple[str, ...], bool]:
    if get_origin(hint) is Literal:
        return str, get_args(hint), False
    if get_origin(hint) in {Union, UnionType}:
        inner, *_ = (part for part in get_args(hint) if part is not NoneType)
        kind, choices, _optional = _analyse(inner)
        return kind, choices, True
    return get_origin(hint) or hint, (), False


def _named(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or len(value) > MAX_MASKS:
        raise TypeError("another type")
    if not all(isinstance(each, str) for pair in value.items() for each in pair):
        raise TypeError("another type")
    return value


def _texts(value: object) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or len(values) > _MOST_FOLDERS:
        raise TypeError("another type")
    if not all(isinstance(each, str) for each in values):
        raise TypeError("another type")
    return tuple(values)
