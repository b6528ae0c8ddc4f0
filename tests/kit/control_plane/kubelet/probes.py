"""Probes: what counts as one success, and how many in a row make a verdict."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.kit.control_plane.kubelet.process import ContainerProcess
    from tests.kit.control_plane.kubelet.resources import Container, HttpGetAction, Probe

__all__ = ("Verdict", "after", "http_get", "port_of", "succeeds", "watch")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe says now, and how many results in a row say otherwise or the same."""

    passing: bool
    successes: int = 0
    failures: int = 0


def after(probe: Probe, verdict: Verdict, *, success: bool) -> Verdict:
    """The verdict after one more result."""
    if success:
        successes = verdict.successes + 1
        return Verdict(verdict.passing or successes >= probe.success_threshold, successes, 0)
    failures = verdict.failures + 1
    return Verdict(verdict.passing and failures < probe.failure_threshold, 0, failures)


async def watch(
    probe: Probe, container: Container, process: ContainerProcess, result: Callable[[bool], bool]
) -> None:
    """Probe every period; `result` hears each outcome and says whether to go on."""
    await asyncio.sleep(probe.initial_delay_seconds)
    while result(await succeeds(probe, container, process)):
        await asyncio.sleep(probe.period_seconds)


async def succeeds(probe: Probe, container: Container, process: ContainerProcess) -> bool:
    """Whether one try succeeds within its time; a probe without an action does."""
    try:
        async with asyncio.timeout(probe.timeout_seconds):
            if probe.http_get is not None:
                return await http_get(probe.http_get, container, process.address) < 400
            if probe.tcp_socket is not None:
                port = port_of(container, probe.tcp_socket.port)
                _, writer = await asyncio.open_connection(process.address, port)
                writer.close()
                return True
            if probe.exec is not None:
                return await process.run(probe.exec.command) == 0
    except (TimeoutError, OSError, aiohttp.ClientError):
        return False
    return True


async def http_get(action: HttpGetAction, container: Container, address: str) -> int:
    """The status of one request on a connection of its own."""
    url = f"http://{address}:{port_of(container, action.port)}/{action.path.removeprefix('/')}"
    headers = [(header.name, header.value) for header in action.http_headers]
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
        session.get(url, headers=headers, allow_redirects=False) as answer,
    ):
        return answer.status


def port_of(container: Container, port: int | str) -> int:
    """The number of a port that may be named."""
    if isinstance(port, int):
        return port
    named: Sequence[int] = [entry.container_port for entry in container.ports if entry.name == port]
    if not named:
        raise OSError(f"container {container.name} has no port named {port}")
    return named[0]
