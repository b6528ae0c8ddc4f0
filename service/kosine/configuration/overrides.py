"""`--index NAME=URI` and `--set PATH=VALUE`: edits of the document before it is converted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kosine.configuration.document import parse_scalar
from kosine.errors import ConfigurationError
from kosine.source_uri import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("apply_overrides", "index_overrides")


def index_overrides(indexes: Sequence[str]) -> list[str]:
    """`items=./items.npy` as `indexes.items.uri="./items.npy"`."""
    pairs = [index.partition("=") for index in indexes]
    for index, (name, _, uri) in zip(indexes, pairs, strict=True):
        if not name or "." in name or not uri:
            raise ConfigurationError(f"--index {shown(index)}: expected NAME=URI, such as items=./items.npy")
        if sum(name == other for other, _, _ in pairs) > 1:
            raise ConfigurationError(f"--index {shown(index)}: `{name}` is given twice")
    return [f"indexes.{name}.uri={json.dumps(uri, ensure_ascii=False)}" for name, _, uri in pairs]


def apply_overrides(
    document: dict[str, Any], overrides: Sequence[str]
) -> tuple[dict[str, Any], frozenset[tuple[str, ...]]]:
    """The document with `PATH=VALUE` edits, later ones winning, and the keys that came from them."""
    keys = set()
    for override in overrides:
        key, value = _split(override)
        document = _with(document, key, value, override)
        keys.add(key)
    return document, frozenset(keys)


def _split(override: str) -> tuple[tuple[str, ...], Any]:
    path, equals, text = override.partition("=")
    key = tuple(path.strip().split("."))
    if not equals or not all(key):
        raise ConfigurationError(f"--set {shown(override)}: expected PATH=VALUE, such as service.port=9000")
    try:
        return key, parse_scalar(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"--set {shown(override)}: {error.detail}") from error


def _with(document: dict[str, Any], key: tuple[str, ...], value: Any, override: str) -> dict[str, Any]:
    first, *rest = key
    if not rest:
        return {**document, first: value}
    below = document.get(first)
    if not isinstance(below, dict | None):
        raise ConfigurationError(
            f"--set {shown(override)}: `{first}` is one value, it has no settings below it"
        )
    return {**document, first: _with(below or {}, tuple(rest), value, override)}
