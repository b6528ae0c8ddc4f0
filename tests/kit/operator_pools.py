"""Resources, pools and what is rendered of them, for tests of the operator's pure half."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kosine_operator.pools import Pool, pool, pool_of, served_by
from kosine_operator.render import Capabilities, Defaults, Live, Rendered, render
from kosine_operator.resources import (
    GROUP,
    SERVER_KIND,
    VERSION,
    CosineIndex,
    CosineServer,
    parse_index,
    parse_server,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = (
    "DEFAULTS",
    "EVERYTHING",
    "EXAMPLES",
    "NOTHING_LIVE",
    "NOW",
    "a_server",
    "an_index",
    "configuration_text",
    "example_pools",
    "manifest",
    "pool_for",
    "rendered",
)

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DEFAULTS = Defaults(image="registry.example/kosine:1.2.3")
EVERYTHING = Capabilities(service_monitor=True, http_route=True, scaled_object=True)
NOTHING_LIVE = Live()


def an_index(
    name: str = "items",
    spec: Mapping[str, Any] | None = None,
    *,
    status: Mapping[str, Any] | None = None,
    **metadata: Any,
) -> CosineIndex:
    """As the API server would send it; `spec` is laid over one that has a source."""
    obj = _object("CosineIndex", name, metadata)
    whole = {"source": {"uri": f"s3://bucket/{name}.npy"}, **(spec or {})}
    return parse_index({**obj, "spec": whole, "status": status or {}})


def a_server(name: str = "shared", spec: Mapping[str, Any] | None = None, **metadata: Any) -> CosineServer:
    """As the API server would send it."""
    return parse_server({**_object("CosineServer", name, metadata), "spec": spec or {}})


def pool_for(index: CosineIndex, *servers: CosineServer, others: Iterable[CosineIndex] = ()) -> Pool:
    """The pool that `index` asks for."""
    found = pool(pool_of(index), [index, *others], servers, now=NOW)
    assert found is not None
    return found


def rendered(
    found: Pool,
    *,
    defaults: Defaults = DEFAULTS,
    capabilities: Capabilities = EVERYTHING,
    live: Live = NOTHING_LIVE,
) -> Rendered:
    """With the defaults of tests."""
    return render(found, defaults=defaults, capabilities=capabilities, live=live)


def manifest(found: Rendered, kind: str, name: str | None = None) -> dict[str, Any]:
    """The one object of that kind, or of that kind and name."""
    (only,) = [
        candidate
        for candidate in found.manifests
        if candidate["kind"] == kind and name in {None, candidate["metadata"]["name"]}
    ]
    return only


def configuration_text(found: Rendered) -> str:
    """What is in the ConfigMap."""
    text: str = manifest(found, "ConfigMap")["data"]["kosine.yaml"]
    return text


def example_pools(path: Path) -> list[Pool]:
    """The pools of what one file of docs/examples creates."""
    documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    stored = [{**each, "metadata": _stored(each["kind"], each["metadata"])} for each in documents]
    indexes = [parse_index(each) for each in stored if each["kind"] != SERVER_KIND]
    servers = [parse_server(each) for each in stored if each["kind"] == SERVER_KIND]
    keys = sorted({pool_of(index) for index in indexes}, key=lambda key: key.label)
    found = [pool(key, indexes, servers, now=NOW) for key in keys]
    assert all(served_by(index) is None for index in indexes)
    return [each for each in found if each is not None]


def _object(kind: str, name: str, metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": kind,
        "metadata": _stored(kind, {"name": name, "namespace": "search", **metadata}),
    }


def _stored(kind: str, metadata: dict[str, Any]) -> dict[str, Any]:
    filled = {"uid": f"uid-of-{kind.lower()}-{metadata['name']}", "generation": 1}
    return {**filled, "creationTimestamp": "2026-01-01T00:00:00Z", **metadata}
