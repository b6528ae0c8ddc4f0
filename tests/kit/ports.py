"""Ports for servers that cannot be given one that is open already."""

from __future__ import annotations

import socket

__all__ = ("free_port",)


def free_port(host: str = "127.0.0.1") -> int:
    """One that nobody has now; whoever listens first gets it."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
