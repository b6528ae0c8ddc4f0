"""The configuration file's text as plain values, by a YAML reader that is strict where YAML is generous.

Built from the parser's events, so nothing is ever constructed from a tag and nothing recurses. Refused:
duplicate keys, anchors and aliases (bombs), tags, several documents, deep nesting. Plain scalars follow
YAML 1.2's core schema: `no`, `off`, `1:30` and dates stay text, and a key is always text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from kosine.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ("MAX_BYTES", "parse_scalar", "parse_yaml", "read_text")

MAX_BYTES = 2**20
MAX_DEPTH = 16

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?([0-9]*\.[0-9]+|[0-9]+\.|[0-9]+(?=[eE]))([eE][-+]?[0-9]{1,3})?")


def read_text(path: Path) -> str:
    """The file's text. Raises ConfigurationError where it cannot be read or is no UTF-8 text up to 1 MiB."""
    try:
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "does not exist"
            raise ConfigurationError(f"the configuration file {path} {what}")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read the configuration file {path}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"the configuration file {path} is larger than {MAX_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"the configuration file {path} is not UTF-8 at byte {error.start}"
        ) from error


def parse_yaml(text: str) -> Any:
    """The one document in `text` as dicts with text keys, lists and scalars; None where there is none."""
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise ConfigurationError(f"expected at most {MAX_BYTES} bytes of YAML")
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_Loader):
            builder.feed(event)
    except yaml.YAMLError as error:
        raise ConfigurationError(_syntax_error(error)) from error
    except UnicodeEncodeError as error:
        raise ConfigurationError("the configuration is not valid Unicode text") from error
    return builder.root


def parse_scalar(text: str) -> Any:
    """One YAML scalar. Raises ConfigurationError for a mapping or a list."""
    value = parse_yaml(text)
    if isinstance(value, dict | list):
        raise ConfigurationError("expected one value, got a mapping or a list; set their keys one by one")
    return value


@dataclass(slots=True)
class _Frame:
    """A mapping or list that is not complete yet."""

    values: dict[str, Any] | list[Any]
    key: str | None = None
    """Of a mapping: the key whose value comes next, or is being built one frame further up."""
    lines: dict[str, int] = field(default_factory=dict)
    """Where each key of a mapping stands."""

    @property
    def wants_key(self) -> bool:
        return isinstance(self.values, dict) and self.key is None

    def put(self, value: Any) -> None:
        if isinstance(self.values, list):
            self.values.append(value)
        elif self.key is not None:
            self.values[self.key] = value


class _Builder:
    """Puts events together on an explicit stack."""

    def __init__(self) -> None:
        self.root: Any = None
        self._documents = 0
        self._open: list[_Frame] = []

    def feed(self, event: yaml.Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise ConfigurationError(f"line {line}: expected one YAML document, got another")
        elif isinstance(event, yaml.NodeEvent):
            _refuse_indirection(event, line)
            self._node(event, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close()

    def _node(self, event: yaml.NodeEvent, line: int) -> None:
        frame = self._open[-1] if self._open else None
        if frame is not None and frame.wants_key:
            self._key(frame, event, line)
        elif isinstance(event, yaml.ScalarEvent):
            self._put(_resolve(event.value) if event.implicit[0] else event.value)
            if frame is not None:
                frame.key = None
        elif len(self._open) == MAX_DEPTH:
            raise ConfigurationError(f"line {line}: nested deeper than {MAX_DEPTH} levels")
        else:
            values: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
            self._put(values)
            self._open.append(_Frame(values))

    def _key(self, frame: _Frame, event: yaml.NodeEvent, line: int) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            raise ConfigurationError(f"line {line}: expected a name as key, got a mapping or a list")
        first = frame.lines.setdefault(event.value, line)
        if event.value in frame.values:
            path = ".".join([*(above.key for above in self._open if above.key is not None), event.value])
            raise ConfigurationError(f"line {line}: `{path}` is given twice, first on line {first}")
        frame.key = event.value

    def _put(self, value: Any) -> None:
        if self._open:
            self._open[-1].put(value)
        else:
            self.root = value

    def _close(self) -> None:
        self._open.pop()
        if self._open:
            self._open[-1].key = None


def _refuse_indirection(event: yaml.NodeEvent, line: int) -> None:
    if isinstance(event, yaml.AliasEvent):
        raise ConfigurationError(f"line {line}: aliases (*{event.anchor}) are refused; write the value out")
    if event.anchor is not None:
        raise ConfigurationError(f"line {line}: anchors (&{event.anchor}) are refused; write values out")
    if getattr(event, "tag", None) is not None:
        raise ConfigurationError(f"line {line}: tags are refused; write a plain value")


def _resolve(plain: str) -> str | float | bool | None:
    if plain in _NULLS:
        return None
    if plain in _BOOLS:
        return _BOOLS[plain]
    if _INT.fullmatch(plain):
        return int(plain)
    return float(plain) if _FLOAT.fullmatch(plain) else plain


def _syntax_error(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not readable"
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}: not YAML: {problem}" if mark is not None else f"not YAML: {problem}"
