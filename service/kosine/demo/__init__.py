"""Two small indexes of things a person recognises, so that an answer can be judged by eye.

Cities are unit vectors on the globe: their cosine is nearness. Colours have each coordinate of their Lab
value as a point on a circle: for close colours `1 - cosine` grows with the square of the visible difference.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ("Collection", "cities", "colours", "save")

_LAB_TO_ANGLE = np.pi / 256
"""The widest Lab axis spans about 200, less than half a turn: no two colours meet around the circle."""
_D65_WHITE = (0.95047, 1.0, 1.08883)
_RGB_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)


@dataclass(frozen=True, slots=True, eq=False)
class Collection:
    """Names, and one vector for each."""

    names: list[str]
    vectors: NDArray[np.float32]

    def vector(self, name: str) -> list[float]:
        """The vector of `name`, short enough to paste."""
        return [round(float(value), 4) for value in self.vectors[self.names.index(name)]]

    def best(self, vector: list[float], count: int) -> list[str]:
        """The `count` names most like `vector`, best first; a small oracle in float64."""
        rows = self.vectors.astype(np.float64)
        scores = rows @ np.asarray(vector) / np.linalg.norm(rows, axis=1)
        return [self.names[row] for row in np.argsort(-scores, kind="stable")[:count]]

    def nearest(self, name: str, count: int) -> list[str]:
        """The `count` names most like `name`, itself left out."""
        return [other for other in self.best(self.vector(name), count + 1) if other != name]


def cities() -> Collection:
    """Well-known cities as points (x, y, z) on a globe of radius 1."""
    table = _table("cities.csv")
    latitude = np.radians([float(row["latitude"]) for row in table])
    longitude = np.radians([float(row["longitude"]) for row in table])
    points = (
        np.cos(latitude) * np.cos(longitude),
        np.cos(latitude) * np.sin(longitude),
        np.sin(latitude),
    )
    return Collection([row["name"] for row in table], np.stack(points, axis=1).astype(np.float32))


def colours(*, brightness: bool = True) -> Collection:
    """The named colours of CSS; without `brightness` only hue and saturation tell them apart."""
    table = _table("colours.csv")
    rgb = np.array([list(bytes.fromhex(row["rgb"])) for row in table]) / 255
    angles = _lab(rgb) * _LAB_TO_ANGLE
    if not brightness:
        angles[:, 0] = 0.0
    features = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    return Collection([row["name"] for row in table], features.astype(np.float32))


def save(collection: Collection, vectors: Path, ids: Path | None = None) -> None:
    """Write the files the way a job should: aside first, then renamed over the old ones."""
    if ids is not None:
        _publish(np.array(collection.names), ids)
    _publish(collection.vectors, vectors)


def _publish(array: NDArray[np.generic], path: Path) -> None:
    aside = path.with_suffix(".partial")
    with aside.open("wb") as file:
        np.save(file, array)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)


def _table(name: str) -> list[dict[str, str]]:
    text = files("kosine.demo").joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE Lab of sRGB colours in 0..1."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)  # noqa: PLR2004  of sRGB
    xyz = linear @ np.array(_RGB_TO_XYZ).T / np.array(_D65_WHITE)
    threshold = (6 / 29) ** 3
    root = np.where(xyz > threshold, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
