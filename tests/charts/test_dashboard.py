"""What the dashboard asks for is there: a real Prometheus scrapes a real service, which has callers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import socket
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import numpy as np

from tests.kit.chart_files import CHARTS
from tests.kit.go_programs import go_program
from tests.kit.process import eventually, kosine_serve
from tests.kit.prometheus_server import prometheus
from tests.kit.writers import publish

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.prometheus_server import Prometheus

FILES = CHARTS / "kosine" / "files"
DASHBOARD: dict[str, Any] = json.loads((FILES / "dashboard.json").read_text(encoding="utf-8"))
LABELS = {"namespace": "shop", "job": "search", "pod": "search-0", "service": "search"}
CHOSEN = {"$namespace": "shop", "$job": "search", "$index": "items", "$__rate_interval": "1m"}
CONFIGURATION = """
defaults:
  refresh: {interval: 1s, settle: 50ms}
  batch: {max_rows: 4, queue_rows: 4, linger: 0ms}
  canary: {max_row_drift_percent: 10}
indexes: {items: {uri: items.npy}}
"""
ALERTS = FILES / "alerts.yaml"
SECONDS = 90.0
ROWS, DIM = 20_000, 64


def write(path: Path, rows: int) -> None:
    """Publish a file of so many rows."""
    publish(path, np.random.default_rng(0).standard_normal((rows, DIM), dtype=np.float32))


async def call(url: str) -> None:
    """Queries that are answered, shed and too late, all at once; what comes of them is not of interest."""
    body = {"embedding": [1.0] * DIM, "k": 10}
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
        for milliseconds in ("2", "2000"):
            headers = {"X-Request-Timeout-Ms": milliseconds}
            queries = [client.post("/indexes/items/cos", json=body, headers=headers) for _ in range(16)]
            await asyncio.gather(*queries)


def babble(url: str) -> None:
    """Something that is no request."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(b"hello\r\n\r\n")
        connection.recv(1024)


def chosen(expression: str) -> str:
    """With the variables as somebody chose them."""
    for variable, value in CHOSEN.items():
        expression = expression.replace(variable, value)
    return expression


def expressions() -> Iterator[tuple[str, str]]:
    """Every query of every panel as Grafana sends it, and the panel's title."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield chosen(target["expr"]), panel["title"]


def choices(server: Prometheus) -> dict[str, set[str]]:
    """What each variable of the dashboard lets one choose."""
    found = {}
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            parts = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert parts is not None
            found[variable["name"]] = server.label_values(chosen(parts[1]), parts[2])
    return found


def evaluated(server: Prometheus) -> bool:
    """Whether Prometheus has tried every alert."""
    rules = server.rules()
    return bool(rules) and all(rule["health"] != "unknown" for rule in rules)


def test_dashboard_and_alerts_find_what_they_ask_for(tmp_path: Path) -> None:
    """Every query of every panel has numbers, every variable its values, and no alert fails to be evaluated.

    One test for all, since it takes a service and a Prometheus.
    """
    program, source = go_program("prometheus", "prometheus"), tmp_path / "items.npy"
    (tmp_path / "kosine.yaml").write_text(CONFIGURATION, encoding="utf-8")
    write(source, ROWS)
    with contextlib.ExitStack() as running:
        service = running.enter_context(kosine_serve("--config", "kosine.yaml", cwd=tmp_path))
        service.wait_ready()
        at = prometheus(program, tmp_path, target=urlsplit(service.url).netloc, labels=LABELS, rules=ALERTS)
        server = running.enter_context(at)
        missing, refused = dict(expressions()), itertools.count(ROWS // 2)
        deadline = time.monotonic() + SECONDS
        while missing and time.monotonic() < deadline:
            asyncio.run(call(service.url))
            babble(service.url)
            write(source, next(refused))
            for asked in [each for each in missing if server.values(each)]:
                del missing[asked]

        assert ({}, [("up", "")]) == (missing, server.targets())
        for annotation in DASHBOARD["annotations"]["list"]:
            server.values(chosen(annotation["expr"]))  # which has any only where a new version came
        assert {"namespace": {"shop"}, "job": {"search"}, "index": {"items"}} == choices(server)
        eventually(lambda: evaluated(server), within=SECONDS, what="every alert evaluated")
        assert [] == [rule["lastError"] for rule in server.rules() if rule["health"] != "ok"]
