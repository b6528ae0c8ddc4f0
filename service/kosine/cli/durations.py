"""Options that take a time, as people write it."""

from __future__ import annotations

from typing import Any

import click

from kosine.units import Duration

__all__ = ("DurationWithin",)


class DurationWithin(click.ParamType[float]):
    """A duration within bounds, both allowed, as seconds; a plain number is seconds."""

    name = "duration"

    def __init__(self, low: str, high: str) -> None:
        self.low, self.high = Duration.parse(low), Duration.parse(high)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click.ParamType."""
        try:
            seconds = float(Duration.parse(_number(value)))
        except (TypeError, ValueError):
            self.fail(f"{value!r}: expected a duration, such as 500ms, 3s or 1m", param, ctx)
        if not self.low <= seconds <= self.high:
            self.fail(f"{value!r}: expected from {self.low.text()} to {self.high.text()}", param, ctx)
        return seconds


def _number(value: Any) -> Any:
    try:
        return float(value)
    except ValueError:
        return value
