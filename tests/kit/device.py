"""The one TensorFlow device of a test process, opened the way `kosine serve` opens it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from kosine.engines.device import open_device

if TYPE_CHECKING:
    from kosine.engines.device import TensorFlowDevice

__all__ = ("cpu_device",)


@cache
def cpu_device() -> TensorFlowDevice:
    """Two seconds the first time: TensorFlow is imported here."""
    return open_device("cpu", None)
