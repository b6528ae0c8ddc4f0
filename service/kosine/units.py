"""Durations and sizes as people write them, and the bounds a setting declares.

A bound is data: the converter enforces it, the error message quotes it and docs/configuration.md prints it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("Duration", "Size", "Within", "human_size")

_NUMBER_AND_UNIT = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)([a-zA-Z]+)")
_SECONDS = {
    "d": Fraction(86400),
    "h": Fraction(3600),
    "m": Fraction(60),
    "s": Fraction(1),
    "ms": Fraction(1, 1000),
    "us": Fraction(1, 1_000_000),
}
_BYTES = {
    "TiB": Fraction(2**40),
    "GiB": Fraction(2**30),
    "MiB": Fraction(2**20),
    "KiB": Fraction(2**10),
    "B": Fraction(1),
}


class Duration(float):
    """Seconds; written `250ms`, `30s`, `5m`, `1h`, or a plain number of seconds."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """To the nanosecond. Raises ValueError or TypeError where `value` is no duration.

        >>> Duration.parse("250ms"), Duration.parse("5m"), Duration.parse(2)
        (0.25, 300.0, 2.0)
        """
        if isinstance(value, str):
            return cls(round(float(_product(value, _SECONDS)), 9))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError("not a duration")
        return cls(round(float(value), 9))

    def text(self) -> str:
        """The shortest form that `parse` reads back as the same number.

        >>> Duration(0.25).text(), Duration(300).text(), Duration(0).text()
        ('250ms', '5m', '0s')
        """
        for unit, factor in _SECONDS.items():
            count = round(self / factor)
            if count and float(count * factor) == self:
                return f"{count}{unit}"
        return f"{Decimal(repr(float(self))):f}s" if self else "0s"


class Size(int):
    """Bytes; written `512MiB`, `24GiB`, or a plain number of bytes."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Raises ValueError or TypeError where `value` is no size in whole bytes.

        >>> Size.parse("1.5KiB"), Size.parse(7)
        (1536, 7)
        """
        if isinstance(value, str):
            product = _product(value, _BYTES)
            if product.denominator != 1:
                raise ValueError("not a whole number of bytes")
            return cls(product.numerator)
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError("not a size")
        return cls(value)

    def text(self) -> str:
        """The shortest form that `parse` reads back as the same number.

        >>> Size(512 * 2**20).text(), Size(1000).text()
        ('512MiB', '1000B')
        """
        unit = next(unit for unit, factor in _BYTES.items() if self % factor == 0 and (self or unit == "B"))
        return f"{int(self // _BYTES[unit])}{unit}"


@dataclass(frozen=True, slots=True)
class Within:
    """Both ends are allowed; written in the unit of the setting: `Within("1s", "1d")`, `Within(1, 4096)`."""

    low: str | float
    high: str | float

    def allows(self, value: float, *, parse: Callable[[object], float]) -> bool:
        """Whether `value` lies within, ends included; NaN does not.

        >>> Within("1s", "1d").allows(Duration.parse("5m"), parse=Duration.parse)
        True
        """
        return parse(self.low) <= value <= parse(self.high)


def human_size(size: int) -> str:
    """About how much, for a person; `Size.text` is exact.

    >>> human_size(1536), human_size(3 * 2**29), human_size(7), human_size(-2048)
    ('1.5 KiB', '1.5 GiB', '7 B', '-2.0 KiB')
    """
    for unit, factor in _BYTES.items():
        if unit != "B" and abs(size) >= factor:
            return f"{float(size / factor):.1f} {unit}"
    return f"{size} B"


def _product(text: str, units: dict[str, Fraction]) -> Fraction:
    matched = _NUMBER_AND_UNIT.fullmatch(text)
    if matched is None or matched[2] not in units:
        raise ValueError(f"not a number with one of the units {', '.join(units)}")
    return Fraction(matched[1]) * units[matched[2]]
