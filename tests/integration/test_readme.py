"""The README is true: whoever follows it sees what it shows."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.kit.readme import Reader, matches, steps_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TOUR = "## A tour of five minutes"


@pytest.mark.skipif(shutil.which("curl") is None, reason="the tour asks with curl")
def test_the_tour_can_be_followed(tmp_path: Path) -> None:
    """Every block of the tour runs, in order, and answers what the README shows."""
    steps = steps_of(README, heading=TOUR)
    assert ["bash", "python", "bash"] == [step.kind for step in steps][:3]
    assert 2 == sum(step.kind == "interrupt" for step in steps)
    with Reader.at(tmp_path) as reader:
        reader.follow(steps)


def test_the_make_targets_of_the_readme_exist() -> None:
    """The two commands a new user types first are targets of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    wanted = re.findall(r"^make ([\w-]+)", README, re.MULTILINE)
    assert {"demo", "test"} <= set(wanted)
    for target in wanted:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_pages_the_readme_points_to_exist() -> None:
    """No link of the README leads nowhere."""
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / target).is_file(), target


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        ('{"a":0.94...,"b":"..."}', '{"a":0.9486,"b":"x"}\n', True),
        ('{"a":1}', '{"a":2}', False),
        ('{"a":1...', '{"b":1}', False),
        ("a ...\nb ...", "a 1\nc 3\nb 2", True),
    ],
)
def test_dots_stand_for_anything_and_nothing_else_does(expected: str, actual: str, same: bool) -> None:
    """The comparison that judges the README can tell a right answer from a wrong one."""
    assert same == matches(expected, actual)
