"""The addresses of a run inside `in-namespaces`, and the question whether this process is in one.

A machine has no addresses for pods and Services. In a network namespace of its own a run has as many as it
likes, may use every port, and leaves nothing behind.
"""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

__all__ = ("NODE_ADDRESS", "POD_NETWORK", "SERVICE_NETWORK", "WRAPPER", "inside")

NODE_ADDRESS = "10.123.0.1"
"""Where the API server listens, and servers that a test starts for pods: they reach it, unlike loopback."""
POD_NETWORK = ipaddress.IPv4Network("10.123.0.0/16")
SERVICE_NETWORK = ipaddress.IPv4Network("10.96.0.0/16")
WRAPPER = Path(__file__).with_name("in-namespaces")


def inside() -> bool:
    """Whether the node's address is ours."""
    with socket.socket() as probe:
        try:
            probe.bind((NODE_ADDRESS, 0))
        except OSError:
            return False
    return True
