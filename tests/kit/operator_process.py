"""The operator as a process beside the cluster: as in a pod, for tests to start, kill, freeze and read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from tests.kit.control_plane.cluster import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.kit.control_plane.cluster import Namespace

__all__ = ("OperatorProcess", "operator_process", "start_operator")


@dataclass(slots=True)
class OperatorProcess:
    """One process; its log is JSON lines in a file."""

    process: subprocess.Popen[bytes]
    log: Path

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log events of that name so far."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [event for event in found if event["event"] == name]

    def wait_for(self, name: str, *, within: float = 60.0) -> dict[str, Any]:
        """The first log event of that name."""

        def find() -> list[dict[str, Any]]:
            assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.tail()}"
            return self.events(name)

        return until(find, what=f"log event {name}", within=within)[0]

    def ask(self, path: str) -> httpx.Response:
        """The health endpoint's answer."""
        return httpx.get(f"http://127.0.0.1:{self.wait_for('listening')['port']}{path}", trust_env=False)

    def tail(self) -> str:
        """The end of the log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal that ends it; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


def start_operator(
    namespace: Namespace,
    *arguments: str,
    name: str = "operator",
    kubeconfig: Path | None = None,
    module: str = "kosine_operator",
    cluster_wide: bool = False,
    **variables: str,
) -> OperatorProcess:
    """An operator of this namespace, or of all, that serves `kosine:test`; the caller ends it."""
    log = namespace.plane.files.folder / f"{namespace.name}-{name}.log"
    where = ["--cluster-wide"] if cluster_wide else ["--namespace", namespace.name]
    command = [
        sys.executable,
        "-m",
        module,
        "run",
        *where,
        "--image",
        "kosine:test",
        "--host",
        "127.0.0.1",
        "--port",
        "0",
        "--log-format",
        "json",
    ]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig or namespace.kubeconfig), **variables}
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [*command, "--pending", "0.3", *arguments], stderr=stream, stdout=stream, env=environment
        )
    return OperatorProcess(process, log)


@contextmanager
def operator_process(
    namespace: Namespace,
    *arguments: str,
    name: str = "operator",
    kubeconfig: Path | None = None,
    cluster_wide: bool = False,
) -> Iterator[OperatorProcess]:
    """One that has listed everything; it ends with the block."""
    operator = start_operator(
        namespace, *arguments, name=name, kubeconfig=kubeconfig, cluster_wide=cluster_wide
    )
    try:
        operator.wait_for("synced")
        yield operator
    finally:
        if operator.process.poll() is None:
            operator.end()
