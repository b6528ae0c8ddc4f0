"""The demo's data is right by what everybody knows of cities and colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from kosine.demo import cities, colours, save

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("name", "neighbours"),
    [
        ("Paris", {"Lille", "Brussels", "Luxembourg", "London"}),
        ("Tokyo", {"Kyoto", "Osaka", "Hiroshima"}),
        ("Sydney", {"Canberra", "Melbourne", "Brisbane"}),
        ("New York", {"Philadelphia", "Boston", "Washington"}),
        ("Nairobi", {"Zanzibar", "Dar es Salaam", "Kampala", "Kigali"}),
    ],
)
def test_the_cosine_of_cities_is_nearness(name: str, neighbours: set[str]) -> None:
    """The nearest cities are those an atlas shows."""
    assert neighbours == set(cities().nearest(name, len(neighbours)))


@pytest.mark.parametrize(
    ("first", "second", "kilometres"),
    [("Paris", "London", 344), ("New York", "Los Angeles", 3936), ("Sydney", "London", 16994)],
)
def test_the_angle_between_cities_is_their_distance(first: str, second: str, kilometres: float) -> None:
    """The vectors are points of the globe: great-circle distances agree within 1 %."""
    known = cities()
    rows = known.vectors.astype(np.float64)
    cosine = rows[known.names.index(first)] @ rows[known.names.index(second)]
    assert kilometres == pytest.approx(6371 * np.arccos(cosine), rel=0.01)


def test_cities_are_many_unique_and_on_the_globe() -> None:
    """Names are ids, so each stands once; vectors have length 1."""
    known = cities()
    assert len(known.names) > 200
    assert len(set(known.names)) == len(known.names) == len(known.vectors)
    assert np.linalg.norm(known.vectors, axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "alike"),
    [
        ("tomato", {"coral", "salmon", "crimson"}),
        ("gold", {"goldenrod", "khaki", "orange"}),
        ("navy", {"darkblue", "midnightblue"}),
        ("black", {"darkslategray", "darkslategrey"}),
    ],
)
def test_the_cosine_of_colours_is_how_alike_they_look(name: str, alike: set[str]) -> None:
    """A colour's neighbours are other names for nearly the same thing."""
    assert alike <= set(colours().nearest(name, 6))


def test_two_names_of_one_colour_are_one_vector() -> None:
    """All 148 names of CSS are there; aqua and cyan are the same."""
    known = colours()
    assert 148 == len(set(known.names)) == len(known.vectors)
    assert known.vector("aqua") == known.vector("cyan")


def test_without_brightness_dark_and_light_shades_come_together() -> None:
    """The demo's second file changes what tomato is like, and not its dimension."""
    flat = colours(brightness=False)
    assert colours().vectors.shape == flat.vectors.shape
    assert "darkred" in flat.nearest("tomato", 4)
    assert "darkred" not in colours().nearest("tomato", 4)


def test_saved_files_are_plain_npy_and_nothing_is_left_beside_them(tmp_path: Path) -> None:
    """What is written is what np.load reads; the file appears whole, by rename."""
    known = colours()
    save(known, tmp_path / "colours.npy", tmp_path / "names.npy")
    save(known, tmp_path / "colours.npy")
    assert ["colours.npy", "names.npy"] == sorted(path.name for path in tmp_path.iterdir())
    assert np.array_equal(known.vectors, np.load(tmp_path / "colours.npy"))
    assert known.names == np.load(tmp_path / "names.npy").tolist()
