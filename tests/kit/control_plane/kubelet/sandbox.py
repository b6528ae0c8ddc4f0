"""A pod's network: a namespace with an address of its own, shared by the pod's containers.

As in a cluster, two pods may listen on the same port of 0.0.0.0, and loopback is the pod's alone.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kit.control_plane.namespaces import NODE_ADDRESS, POD_NETWORK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ("SandboxFailed", "pod_address", "sandbox")

_JOIN = Path(__file__).with_name("join-network")
_FIRST = 256  # those below are the node's


class SandboxFailed(Exception):
    """The machine refused the pod its network; says what it said."""


def pod_address(number: int) -> str:
    """The address of the run's n-th pod, from 0; reused only after 60000 pods."""
    usable = POD_NETWORK.num_addresses - _FIRST - 1
    return str(POD_NETWORK.network_address + _FIRST + number % usable)


@asynccontextmanager
async def sandbox(number: int, address: str) -> AsyncIterator[int]:
    """The id of a process in the pod's network namespace, which lives as long as the block."""
    holder = await asyncio.create_subprocess_exec(
        *("unshare", "--net", "sh", "-c", "echo; exec sleep infinity"), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        await holder.stdout.readline()  # in its namespace now
        join = await asyncio.create_subprocess_exec(
            *(_JOIN, str(holder.pid), address, f"pod{number}", NODE_ADDRESS), stderr=asyncio.subprocess.PIPE
        )
        _, said = await join.communicate()
        if join.returncode:
            raise SandboxFailed(said.decode(errors="replace").strip())
        yield holder.pid
    finally:
        with suppress(ProcessLookupError):
            holder.kill()
        await holder.wait()
