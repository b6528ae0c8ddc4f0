"""Sizes and durations as the CRDs allow them, as numbers and in the notation of the service. Pure."""

from __future__ import annotations

import re

__all__ = ("bytes_of", "seconds_of", "size_of")

_BYTES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+)(us|ms|s|m|h)")


def bytes_of(quantity: str) -> int:
    """Of a Kubernetes quantity with a binary suffix.

    >>> bytes_of("64Mi")
    67108864
    """
    return int(quantity[:-2]) * _BYTES[quantity[-2:]]


def size_of(quantity: str) -> str:
    """The same size as the service writes it.

    >>> size_of("64Mi")
    '64MiB'
    """
    return f"{quantity}B"


def seconds_of(duration: str) -> float:
    """Of a duration, which both sides write alike.

    >>> seconds_of("250ms"), seconds_of("5m")
    (0.25, 300.0)
    """
    matched = _DURATION.fullmatch(duration)
    if matched is None:
        raise ValueError(f"expected a duration such as 250ms, 30s or 5m, got {duration!r}")
    return int(matched[1]) * _SECONDS[matched[2]]
