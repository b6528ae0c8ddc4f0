"""From plain values to `Settings`, reporting every problem by key, value and what is allowed.

`defaults` is converted first and then stands in for whatever an index does not say, section by section.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct, structs

from kosine.configuration.fields import Setting, settings_of
from kosine.configuration.locations import named_by_hand, roots_of, to_root, to_source
from kosine.errors import ConfigurationError
from kosine.settings import (
    CREDENTIALS_PATTERN,
    INDEX_NAME_PATTERN,
    MASK_NAME_PATTERN,
    CanarySettings,
    DefaultSettings,
    GcsSettings,
    IndexSettings,
    S3Settings,
    ServiceSettings,
    Settings,
)
from kosine.source_uri import BadUri, UriPolicy, shown

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ("Origin", "convert")

_Section = TypeVar("_Section", bound=Struct)
_Key = tuple[str, ...]

_TOP = ("service", "defaults", "indexes", "default_index")
_SHOWN_CHARACTERS = 80
_ENDPOINT = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where values come from, which decides what a relative path is relative to."""

    folder: Path
    """Of the configuration file."""
    working_folder: Path
    from_command_line: frozenset[_Key] = frozenset()
    file_roots: tuple[str, ...] | None = None
    """Where files may lie unless `service.file_roots` says it; None: not known, so nothing is checked."""

    def folder_of(self, key: _Key) -> Path:
        """What a relative path in `key` is relative to."""
        return self.working_folder if key in self.from_command_line else self.folder

    def name(self, key: _Key) -> str:
        """The key as messages write it."""
        suffix = " (command line)" if key in self.from_command_line else ""
        return f"{'.'.join(key)}{suffix}"


def convert(document: object, *, origin: Origin) -> Settings:
    """Raises one ConfigurationError that lists every problem of the document."""
    if not isinstance(document, dict):
        raise ConfigurationError(
            f"expected a mapping with {_listed(_TOP)} at the top, got {_shown(document)}"
        )
    conversion = _Conversion(origin)
    settings = conversion.settings(document)
    if conversion.problems:
        raise _refusal(conversion.problems)
    return settings


def _refusal(problems: list[str]) -> ConfigurationError:
    if len(problems) == 1:
        return ConfigurationError(problems[0], problems=problems)
    lines = "".join(f"\n  {problem}" for problem in problems)
    return ConfigurationError(f"{len(problems)} problems:{lines}", problems=problems)


class _Conversion:
    """Collects problems; where there is one, the default stands in so that the rest can be looked at too."""

    def __init__(self, origin: Origin) -> None:
        self.problems: list[str] = []
        self._origin = origin
        self._policy: UriPolicy | None = None
        self._by_hand: list[str] = []
        """Sources that the command line names."""

    def settings(self, document: dict[str, Any]) -> Settings:
        self._refuse_unknown(document, _TOP, ())
        service = self._section(ServiceSettings, document.get("service"), ("service",), ServiceSettings())
        roots = service.file_roots if service.file_roots is not None else self._origin.file_roots
        self._policy = UriPolicy(file_roots=roots) if roots is not None else None
        defaults = self._section(DefaultSettings, document.get("defaults"), ("defaults",), DefaultSettings())
        indexes = self._indexes(document.get("indexes"), defaults)
        default_index = self._default_index(document.get("default_index"), list(indexes))
        service = structs.replace(service, file_roots=self._effective_roots(roots))
        return Settings(service=service, indexes=indexes, default_index=default_index)

    def _effective_roots(self, roots: tuple[str, ...] | None) -> tuple[str, ...] | None:
        named = tuple(root for uri in self._by_hand for root in roots_of(uri))
        return tuple(dict.fromkeys((*roots, *named))) if roots is not None else named or None

    def _indexes(self, raw: object, defaults: DefaultSettings) -> dict[str, IndexSettings]:
        key = ("indexes",)
        stand_in = IndexSettings(
            uri="",
            **{setting.name: getattr(defaults, setting.name) for setting in settings_of(DefaultSettings)},
        )
        indexes = {}
        for name, values in self._mapping(raw, key, "a mapping of names to settings").items():
            if re.fullmatch(INDEX_NAME_PATTERN, name):
                indexes[name] = self._section(IndexSettings, values, (*key, name), stand_in)
            else:
                self._problem(
                    (*key, name),
                    "not an index name; expected 1 to 63 of a-z, 0-9 and inner hyphens",
                )
        return indexes

    def _section(self, kind: type[_Section], raw: object, key: _Key, stand_in: _Section) -> _Section:
        settings = settings_of(kind)
        known = [setting.name for setting in settings]
        before = len(self.problems)
        given = self._mapping(raw, key, f"a mapping of settings ({_listed(known)})")
        self._refuse_unknown(given, known, key)
        section = kind(**{setting.name: self._field(setting, given, key, stand_in) for setting in settings})
        if len(self.problems) == before:
            self.problems += [f"{self._origin.name(key)}: {clash}" for clash in _clashes(section, stand_in)]
        return section

    def _field(self, setting: Setting, given: dict[str, Any], key: _Key, stand_in: Struct) -> Any:
        below = (*key, setting.name)
        inherited = getattr(stand_in, setting.name)
        if setting.section is not None:
            return self._section(setting.section, given.get(setting.name), below, inherited)
        if setting.name not in given:
            if setting.required:
                self._problem(below, f"missing; expected {setting.expected}")
            return inherited
        value = given[setting.name]
        try:
            parsed = setting.parse(value)
        except (TypeError, ValueError):
            self._problem(below, f"expected {setting.expected}, got {_shown(value)}")
            return inherited
        if parsed is None or not (setting.located or setting.folders):
            return parsed
        if setting.kind is dict:
            return self._named_sources(parsed, below)
        try:
            return self._source(parsed, below) if setting.located else self._folders(parsed, below)
        except BadUri as error:
            self._problem(below, str(error))
            return inherited

    def _source(self, text: str, key: _Key) -> str:
        folder = self._origin.folder_of(key)
        if key not in self._origin.from_command_line:
            return to_source(text, folder=folder, policy=self._policy)
        self._by_hand.append(named_by_hand(text, folder=folder))
        return self._by_hand[-1]

    def _named_sources(self, uris: dict[str, str], key: _Key) -> dict[str, str]:
        found = {}
        for name, uri in uris.items():
            below = (*key, _clipped(name))
            if not re.fullmatch(MASK_NAME_PATTERN, name):
                expected = "1 to 63 of a-z, 0-9, and inner hyphens or underscores"
                self._problem(below, f"not the name of a mask; expected {expected}")
                continue
            try:
                found[name] = self._source(uri, below)
            except BadUri as error:
                self._problem(below, str(error))
        return found

    def _folders(self, texts: str | tuple[str, ...], key: _Key) -> str | tuple[str, ...]:
        folder = self._origin.folder_of(key)
        if isinstance(texts, str):
            return to_root(texts, folder=folder)
        return tuple(dict.fromkeys(to_root(text, folder=folder) for text in texts))

    def _default_index(self, raw: object, names: list[str]) -> str | None:
        if raw is None:
            return names[0] if len(names) == 1 else None
        if type(raw) is int:  # an index may be called 2024
            raw = str(raw)
        if raw not in names:
            hint = _did_you_mean(str(raw), names)
            self._problem(("default_index",), f"no index is named {_shown(raw)}; {_known(names)}{hint}")
            return None
        return str(raw)

    def _mapping(self, raw: object, key: _Key, expected: str) -> dict[str, Any]:
        if raw is None:
            return {}
        if isinstance(raw, dict):
            return raw
        self._problem(key, f"expected {expected}, got {_shown(raw)}")
        return {}

    def _refuse_unknown(self, given: dict[str, Any], known: Iterable[str], key: _Key) -> None:
        for name, value in given.items():
            if name not in known:
                hint = f"{_known(known)}{_did_you_mean(name, known)}"
                self._problem((*key, _clipped(name)), f"unknown setting, got {_shown(value)}; {hint}")

    def _problem(self, key: _Key, text: str) -> None:
        self.problems.append(f"{self._origin.name(key)}: {text}")


def _clashes(section: Struct, stand_in: Struct) -> list[str]:
    """What single fields cannot show. Limits that are inherited as they are were complained of above."""
    if isinstance(section, S3Settings | GcsSettings):
        return _endpoint_clashes(section)
    if not isinstance(section, DefaultSettings) or not isinstance(stand_in, DefaultSettings):
        return []
    inherited = _limits(section) == _limits(stand_in)
    return (
        ([] if inherited else _limit_clashes(section))
        + _layout_clashes(section)
        + _manifest_clashes(section)
        + _credentials_clashes(section)
        + ([] if _canary_terms(section) == _canary_terms(stand_in) else _canary_clashes(section))
    )


def _endpoint_clashes(section: S3Settings | GcsSettings) -> list[str]:
    if section.endpoint_url is None or _ENDPOINT.fullmatch(section.endpoint_url):
        return []
    return ["expected endpoint_url as http(s)://host[:port], without user, path or query"]


def _limits(section: DefaultSettings) -> tuple[int, int, int, int]:
    return section.k, section.max_k, section.batch.max_rows, section.batch.queue_rows


def _limit_clashes(section: DefaultSettings) -> list[str]:
    clashes = []
    k, max_k, max_rows, queue_rows = _limits(section)
    if k > max_k:
        clashes.append(f"expected k at most max_k, got k {k} and max_k {max_k}")
    if max_rows > queue_rows:
        clashes.append(
            f"expected batch.max_rows at most batch.queue_rows, got {max_rows} and {queue_rows}: "
            "a batch can hold no more than its queue"
        )
    return clashes


def _layout_clashes(section: DefaultSettings) -> list[str]:
    if isinstance(section, IndexSettings) and section.layout == "transposed" and section.dim is None:
        return ["layout `transposed` needs dim: a 1-D file does not say how long its rows are"]
    return []


def _manifest_clashes(section: DefaultSettings) -> list[str]:
    if not isinstance(section, IndexSettings) or not section.has_manifest:
        return []
    beside = {"ids": section.ids is not None, "masks": bool(section.masks)}
    return [
        f"expected no {name} beside a manifest: the `.json` that uri names says where they are"
        for name, given in beside.items()
        if given
    ]


def _credentials_clashes(section: DefaultSettings) -> list[str]:
    if not isinstance(section, IndexSettings) or section.credentials is None:
        return []
    if not re.fullmatch(CREDENTIALS_PATTERN, section.credentials):
        expected = (
            "the name of a file: 1 to 253 letters, digits, `-`, `_` and `.`, the first a letter or digit"
        )
        return [f"expected credentials as {expected}, got {_shown(section.credentials)}"]
    if not section.uri.startswith(("s3://", "gs://")):
        return ["expected no credentials beside a file of this machine; they are for s3:// and gs:// sources"]
    return []


def _canary_terms(section: DefaultSettings) -> tuple[CanarySettings, str]:
    return section.canary, section.policy


def _canary_clashes(section: DefaultSettings) -> list[str]:
    canary = section.canary
    clashes = []
    if canary.golden is not None and not canary.golden.endswith(".json"):
        clashes.append(f"expected canary.golden to name a .json file, got {_shown(canary.golden)}")
    asks = canary.golden is not None or canary.min_overlap_percent is not None
    if asks and section.policy == "resource_preserving":
        clashes.append(
            "expected policy availability_preserving beside canary.golden or canary.min_overlap_percent: by "
            "resource_preserving the version that would serve on is gone before the new one can be asked"
        )
    return clashes


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, str):
        return shown(value)
    return "nothing" if value is None else _clipped(repr(value))


def _clipped(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _known(names: Iterable[str]) -> str:
    return f"known are {_listed(names)}" if list(names) else "none is configured"


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean `{close[0]}`?" if close else ""
