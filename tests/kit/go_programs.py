"""Programs in Go that some tests run: built by a kit's own `build`, from the versions in its go.mod."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

__all__ = ("go_program",)

_KITS = Path(__file__).parent


def go_program(kit: str, name: str) -> Path:
    """One of the programs of tests/kit/KIT; without it a loud skip, and with CI=true a failure."""
    asked = subprocess.run([_KITS / kit / "build", "--where"], capture_output=True, text=True, check=False)
    program = Path(asked.stdout.strip() or ".") / name
    if not program.is_file():
        outcome = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        outcome(asked.stderr.strip() or f"{name} is not built: make {kit} (once)")
    return program
