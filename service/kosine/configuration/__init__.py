"""A configuration file, command-line options, or both, as checked `Settings`; and settings as text again.

    service:  {host: 0.0.0.0, port: 8080}
    defaults: {k: 10, refresh: {interval: 30s}}     # what every index inherits
    indexes:
      items: {uri: ./items.npy}                     # any default can be overridden here
    default_index: items                            # POST /cos; with one index it is that one

Either every value is right or a ConfigurationError lists what is not. docs/configuration.md has the tables.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import yaml

from kosine.configuration.conversion import Origin, convert
from kosine.configuration.document import parse_yaml, read_text
from kosine.configuration.overrides import apply_overrides, index_overrides
from kosine.errors import ConfigurationError
from kosine.units import Duration, Size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kosine.settings import Settings

__all__ = ("dump", "index_overrides", "load", "parse", "settings_hash")


def load(path: Path | None, *, indexes: Sequence[str] = (), overrides: Sequence[str] = ()) -> Settings:
    """Read the file, if any, then apply `indexes` (NAME=URI) and `overrides` (PATH=VALUE) in this order.

    Paths in the file are relative to the file's folder, those in options to the working directory.
    """
    edits = [*index_overrides(indexes), *overrides]
    if path is None:
        return _settings({}, overrides=edits, folder=Path.cwd(), file_roots=())
    text = read_text(path)
    try:
        return parse(text, overrides=edits, folder=_folder_of(path))
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error.detail}", **error.facts) from error


def parse(text: str, *, overrides: Sequence[str] = (), folder: Path | None = None) -> Settings:
    """Settings from YAML text; relative paths in it start at `folder`, and files in it must lie there.

    Without a folder paths start at the working directory, and where files lie is left to whoever loads them.
    """
    document = parse_yaml(text)
    if folder is None:
        return _settings(document, overrides=overrides, folder=Path.cwd(), file_roots=None)
    roots = (str(folder),) if folder != folder.parent else ()
    return _settings(document, overrides=overrides, folder=folder, file_roots=roots)


def _folder_of(path: Path) -> Path:
    """As it was written, so that a link which is flipped is followed; `..` would have several meanings."""
    folder = path.absolute().parent
    return folder.resolve() if ".." in folder.parts else folder


def _settings(
    document: Any, *, overrides: Sequence[str], folder: Path, file_roots: tuple[str, ...] | None
) -> Settings:
    edited: frozenset[tuple[str, ...]] = frozenset()
    if isinstance(document, dict):
        document, edited = apply_overrides(document, overrides)
    return convert(document, origin=Origin(folder, Path.cwd(), edited, file_roots))


def dump(settings: Settings) -> str:
    """The effective configuration as YAML; `parse` makes the same settings of it."""
    plain = msgspec.to_builtins(settings, enc_hook=_as_text)
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110)


def settings_hash(settings: Settings) -> str:
    """SHA-256 (hex) of the effective configuration: equal hashes, equal settings."""
    canonical = msgspec.json.encode(msgspec.to_builtins(settings, enc_hook=_as_text), order="sorted")
    return hashlib.sha256(canonical).hexdigest()


def _as_text(value: object) -> str:
    if isinstance(value, Duration | Size):
        return value.text()
    raise NotImplementedError(f"no text form of {type(value).__name__}")
