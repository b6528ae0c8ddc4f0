"""Which format a caller wants most: the `Accept` header of RFC 9110, section 12.5.1. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("negotiate",)

_TOKEN = r"[!#$%&'+.^_`|~0-9a-z-]+"  # noqa: S105  a token of HTTP's grammar
_RANGE = re.compile(rf"(\*/\*|{_TOKEN}/(?:\*|{_TOKEN}))")
_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
_MOST_RANGES = 32
"""More than anybody sends; what stands behind them is not looked at."""


class _Range(NamedTuple):
    pattern: str
    weight: float

    @property
    def specificity(self) -> int:
        return 0 if self.pattern == "*/*" else 1 if self.pattern.endswith("/*") else 2

    def covers(self, media_type: str) -> bool:
        if self.specificity == 0:
            return True
        if self.specificity == 1:
            return media_type.startswith(self.pattern[:-1])
        return media_type == self.pattern


def negotiate(accept: str, offered: Sequence[str]) -> str | None:
    """The media type of `offered` that `accept` weighs most; of equals the one offered first; None: none.

    The most specific range decides about a type. What is no media range is ignored, and where nothing else
    is there, anything goes.

    >>> negotiate("application/msgpack, */*;q=0.5", ["application/json", "application/msgpack"])
    'application/msgpack'
    >>> negotiate("*/*, application/json;q=0", ["application/json", "application/msgpack"])
    'application/msgpack'
    >>> negotiate("text/html", ["application/json"]) is None
    True
    """
    ranges = [
        each for part in accept.lower().split(",", _MOST_RANGES)[:_MOST_RANGES] if (each := _range(part))
    ]
    if not ranges:
        return offered[0]
    weights = {media_type: _weight(media_type, ranges) for media_type in offered}
    best = max(offered, key=weights.__getitem__)
    return best if weights[best] > 0 else None


def _weight(media_type: str, ranges: list[_Range]) -> float:
    covering = [each for each in ranges if each.covers(media_type)]
    return max(covering, key=lambda each: each.specificity).weight if covering else 0.0


def _range(part: str) -> _Range | None:
    essence, *parameters = (each.strip() for each in part.split(";"))
    if not _RANGE.fullmatch(essence):
        return None
    named = (parameter.partition("=") for parameter in parameters)
    weight = next((value.strip() for name, _, value in named if name.strip() == "q"), "1")
    return _Range(essence, float(weight)) if _WEIGHT.fullmatch(weight) else None
