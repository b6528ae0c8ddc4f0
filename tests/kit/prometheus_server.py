"""A real Prometheus that scrapes services of a test, and what it finds."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any

import httpx
import yaml

from tests.kit.ports import free_port
from tests.kit.process import STARTUP_SECONDS, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ("Prometheus", "prometheus")


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running server."""

    url: str

    def values(self, expression: str) -> list[float]:
        """Of every series that the expression has now, but for those that are not a number."""
        found = self._ask("query", query=expression)["result"]
        values = [float(each["value"][1]) for each in found]
        return [each for each in values if not isnan(each)]

    def label_values(self, metric: str, label: str) -> set[str]:
        """Values of a label of the series that a selector matches."""
        return set(self._ask(f"label/{label}/values", **{"match[]": metric}))

    def rules(self) -> list[dict[str, Any]]:
        """Every rule that it evaluates, with its `health` and `lastError`."""
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def targets(self) -> list[tuple[str, str]]:
        """Health and last error of each that it scrapes."""
        return [(each["health"], each["lastError"]) for each in self._ask("targets")["activeTargets"]]

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            return httpx.get(f"{self.url}/-/ready", trust_env=False).is_success
        except httpx.TransportError:
            return False

    def _ask(self, what: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{what}", params=parameters, timeout=30, trust_env=False)
        assert answer.is_success, answer.text
        return answer.json()["data"]


@contextmanager
def prometheus(
    program: Path, folder: Path, *, target: str, labels: Mapping[str, str], rules: Path
) -> Iterator[Prometheus]:
    """One that scrapes host:port `target` every second under `labels`, and evaluates a file of rules."""
    port = free_port()
    scraped = {"job_name": labels["job"], "static_configs": [{"targets": [target], "labels": dict(labels)}]}
    intervals = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    configuration = folder / "prometheus.yml"
    document = {"global": intervals, "rule_files": [str(rules)], "scrape_configs": [scraped]}
    configuration.write_text(yaml.safe_dump(document), encoding="utf-8")
    command = [
        str(program),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'series'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--scrape.discovery-reload-interval=100ms",  # else it scrapes after 5 s
    ]
    with (folder / "prometheus.log").open("wb") as log, subprocess.Popen(command, stderr=log) as process:
        server = Prometheus(f"http://127.0.0.1:{port}")
        try:
            eventually(server.is_up, within=STARTUP_SECONDS, what=f"Prometheus; {log.name} says more")
            yield server
        finally:
            process.terminate()
