"""What the cluster and the stores of the tests are built by keeps what it promises, on a small module."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[2] / "scripts" / "build-go-tools"
GO = shutil.which("go")

pytestmark = pytest.mark.skipif(GO is None, reason="there is no Go to build with")


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module with one program, and where it is built to."""

    source: Path
    output: Path

    def build(self, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
        arguments = (*options, str(self.source), str(self.output), "", "hello=example.org/hello")
        return subprocess.run(
            [BUILD, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **environment},
        )

    def where(self) -> Path:
        return Path(self.build("--where").stdout.strip())

    def write(self, program: str) -> None:
        (self.source / "main.go").write_text(program, encoding="utf-8")

    def require(self, module: str) -> None:
        with (self.source / "go.mod").open("a", encoding="utf-8") as lines:
            lines.write(f"require {module}\n")


@pytest.fixture
def module(tmp_path: Path) -> Module:
    """One that builds, without dependencies."""
    made = Module(tmp_path / "source", tmp_path / "built")
    made.source.mkdir()
    (made.source / "go.mod").write_text(
        "module example.org/hello\ngo 1.24\ntool example.org/hello\n", encoding="utf-8"
    )
    (made.source / "go.sum").write_text("", encoding="utf-8")
    made.write('package main\nfunc main() { println("hello") }\n')
    return made


def test_programs_are_built_once_where_it_says(module: Module) -> None:
    """The second call does nothing; the program runs."""
    first, second = module.build(), module.build()
    assert (0, 0) == (first.returncode, second.returncode), first.stderr
    assert "already built" in second.stdout
    program = subprocess.run([module.where() / "hello"], capture_output=True, text=True, check=True)
    assert "hello\n" == program.stderr


def test_another_state_of_what_it_is_made_of_is_another_folder(module: Module) -> None:
    """A change of go.mod never finds programs of before."""
    before = module.where()
    module.require("example.org/other v1.0.0")
    assert before != module.where()


def test_what_does_not_compile_leaves_nothing(module: Module) -> None:
    """A folder that is there is whole."""
    module.write("package main\nfunc main() { nonsense }\n")
    failed = module.build()
    assert 1 == failed.returncode
    assert "go build example.org/hello failed" in failed.stderr
    assert [] == [path for path in module.output.iterdir() if path.is_dir()]


def test_a_download_that_fails_says_what_to_do(module: Module) -> None:
    """The proxy is the user's own setting, so it is named as that."""
    module.require("example.org/other v1.0.0")
    module.write('package main\nimport "example.org/other"\nfunc main() { other.Go() }\n')
    failed = module.build(GOPROXY="off", GOFLAGS="-mod=mod")
    assert 1 == failed.returncode
    assert "'go env GOPROXY'" in failed.stderr
    assert [] == [path for path in module.output.iterdir() if path.is_dir()]


def test_without_go_it_says_what_is_needed(module: Module, tmp_path: Path) -> None:
    """The version comes from go.mod."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("bash", "env", "awk", "basename"):
        (programs / name).symlink_to(str(shutil.which(name)))
    failed = module.build(PATH=str(programs))
    assert 1 == failed.returncode
    assert "needs Go 1.24 or newer" in failed.stderr
