"""docs/coming-from.md is true: whoever follows it sees what it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.kit.generated_docs import DOCS
from tests.kit.process import kosine_serve

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

PAGE = (DOCS / "coming-from.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def printed(program: str, folder: Path) -> str:
    """What `program` says in `folder`; it neither fails nor warns."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def test_every_block_prints_what_stands_below_it(tmp_path: Path) -> None:
    """The first writes the files of an index, the next is its configuration, the others ask it in turn."""
    files, *questions = blocks("python")
    [configuration], shown = blocks("yaml"), blocks("text")
    printed(files, tmp_path)
    (tmp_path / "kosine.yaml").write_text(configuration, encoding="utf-8")

    with kosine_serve("--config", "kosine.yaml", cwd=tmp_path) as service:
        service.wait_ready()
        program = "".join(questions).replace("http://127.0.0.1:8080", service.url)
        answers = printed(f"{program}client.close()\n", tmp_path)

    assert "".join(shown) == answers
    assert [1] * (len(questions) - 1) == [each.count("\n") for each in shown]
