"""What resources in files would become, with no cluster: for people, reviews and `diff` in a pipeline."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import yaml

from kosine_operator import pools
from kosine_operator.render import Capabilities, Live, render
from kosine_operator.resources import (
    GROUP,
    INDEX_KIND,
    SERVER_KIND,
    VERSION,
    InvalidResource,
    parse_index,
    parse_server,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from kosine_operator.pools import PoolKey
    from kosine_operator.render import Defaults, Manifest
    from kosine_operator.resources import CosineIndex, CosineServer

__all__ = ("OfflineError", "render_files")

_NO_UID = "00000000-0000-0000-0000-000000000000"
"""The API server gives the real one."""


class OfflineError(Exception):
    """The message names the file, the resource and what is wrong with it."""


def render_files(
    files: Iterable[Path], *, namespace: str, defaults: Defaults, installed: Sequence[str]
) -> str:
    """YAML of every object, in the order it would be applied. Raises OfflineError."""
    capabilities = Capabilities(
        service_monitor="ServiceMonitor" in installed,
        http_route="HTTPRoute" in installed,
        scaled_object="ScaledObject" in installed,
    )
    indexes, servers = _read(files, namespace=namespace)
    manifests = [
        manifest
        for key in _keys(indexes, servers)
        for manifest in _rendered(key, indexes, servers, defaults=defaults, capabilities=capabilities)
    ]
    return yaml.safe_dump_all(manifests, sort_keys=False)


def _rendered(
    key: PoolKey,
    indexes: Sequence[CosineIndex],
    servers: Sequence[CosineServer],
    *,
    defaults: Defaults,
    capabilities: Capabilities,
) -> Iterator[Manifest]:
    here = [index for index in indexes if index.metadata.namespace == key.namespace]
    beside = [server for server in servers if server.metadata.namespace == key.namespace]
    pool = pools.pool(key, here, beside, now=dt.datetime.now(dt.UTC))
    for index in pools.members(key, here):
        if not (verdict := pools.acceptance(index, pool)).accepted:
            raise OfflineError(f"CosineIndex {index.metadata.name}: {verdict.reason}: {verdict.message}")
    if pool is not None:
        rendered = render(pool, defaults=defaults, capabilities=capabilities, live=Live())
        for refusal in rendered.refused:
            raise OfflineError(f"{key.kind} {key.name}: {refusal.reason}: {refusal.message}")
        yield from rendered.manifests


def _keys(indexes: Iterable[CosineIndex], servers: Iterable[CosineServer]) -> list[PoolKey]:
    asked = {pools.pool_of(index) for index in indexes}
    own = {
        pools.PoolKey(server.metadata.namespace, "CosineServer", server.metadata.name) for server in servers
    }
    return sorted(asked | own, key=lambda key: (key.namespace, key.kind, key.name))


def _read(files: Iterable[Path], *, namespace: str) -> tuple[list[CosineIndex], list[CosineServer]]:
    indexes, servers = [], []
    for path in files:
        for obj in _documents(path):
            named = {"uid": _NO_UID, "namespace": namespace, **(obj.get("metadata") or {})}
            stored = {**obj, "metadata": named}
            try:
                if obj["kind"] == INDEX_KIND:
                    indexes.append(parse_index(stored))
                else:
                    servers.append(parse_server(stored))
            except InvalidResource as error:
                raise OfflineError(f"{path}: {obj['kind']} {named.get('name')}: {error}") from error
    return indexes, servers


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    """Our resources among the documents of a file."""
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise OfflineError(f"{path}: {error}") from error
    for document in documents:
        if not isinstance(document, dict):
            continue
        if document.get("apiVersion") != f"{GROUP}/{VERSION}" or document.get("kind") not in (
            INDEX_KIND,
            SERVER_KIND,
        ):
            raise OfflineError(
                f"{path}: expected {GROUP}/{VERSION} {INDEX_KIND} or {SERVER_KIND}, "
                f"got {document.get('apiVersion')} {document.get('kind')}"
            )
        yield document
