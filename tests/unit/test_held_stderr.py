"""Of what a library prints while it is imported, the banner goes and everything else stays."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING

from kosine.engines.held_stderr import without_lines

if TYPE_CHECKING:
    import pytest

BANNER = re.compile(rb"welcome to \w+")


def test_the_banner_goes_and_everything_else_comes_in_order(capfd: pytest.CaptureFixture[str]) -> None:
    """Lines written straight to the descriptor, as C++ does, are filtered one by one."""
    with without_lines(BANNER):
        os.write(2, b"first\nI0000 welcome to tensors\nsecond\nno newline")
    os.write(2, b", third\n")
    assert "first\nsecond\nno newline, third\n" == capfd.readouterr().err


def test_an_error_takes_its_text_along(capfd: pytest.CaptureFixture[str]) -> None:
    """When the import fails, what it printed is not lost, and standard error works as before."""
    with contextlib.suppress(ImportError), without_lines(BANNER):
        os.write(2, b"cannot open libcudart\n")
        raise ImportError
    assert "cannot open libcudart\n" == capfd.readouterr().err
