"""What is shipped, what an import costs, and what the locks promise."""

from __future__ import annotations

import operator
import re
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import kosine

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
REQUIREMENT = re.compile(r"([a-z0-9][a-z0-9.-]*)==([^ ;\\]+)")


def lock_entries(lock: Path) -> list[str]:
    """Logical lines: a requirement with its marker and hashes."""
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def names_in(lock: Path) -> set[str]:
    return {found[1] for entry in lock_entries(lock) if (found := REQUIREMENT.match(entry))}


def dependencies(*groups: list[str]) -> set[str]:
    return {re.split(r"[<>=\[; ]", item)[0] for group in groups for item in group} - {"kosine"}


def test_no_folder_shadows_the_standard_library() -> None:
    """A package in operator/ would replace the standard library's module in every checkout."""
    assert operator.__file__ == str(Path(sysconfig.get_path("stdlib")) / "operator.py")
    for folder in ("service", "operator"):
        assert not (ROOT / folder / "__init__.py").exists()


def test_the_version_is_said_once() -> None:
    """The package, its metadata and the changelog agree."""
    assert kosine.__version__ == version("kosine")
    assert f"## {kosine.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("kosine", {"tensorflow", "numpy", "httpx", "msgspec", "asyncio"}),
        ("kosine.client", {"tensorflow", "litestar", "uvicorn", "psutil", "structlog", "yaml"}),
        ("kosine.cli", {"tensorflow", "numpy", "litestar", "uvicorn", "watchfiles", "rich"}),
        ("kosine.configuration", {"tensorflow", "numpy", "litestar", "click", "structlog"}),
        ("kosine.http.application", {"tensorflow", "watchfiles"}),
        ("kosine.serving.registry", {"tensorflow", "litestar", "uvicorn"}),
    ],
)
def test_an_import_brings_only_what_it_needs(module: str, absent: set[str]) -> None:
    """`kosine --help` answers at once, and no room drags in another room's libraries."""
    code = f"import sys, {module}; print(*sorted(set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set() == absent & set(done.stdout.split())


def test_what_kosine_offers_can_be_imported() -> None:
    """Also what is imported only when it is used; nothing else is pretended to be there."""
    assert [] == [name for name in kosine.__all__ if not hasattr(kosine, name)]
    assert not hasattr(kosine, "Server")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_pins_everything_by_version_and_hash(lock: Path) -> None:
    """Nothing is installed that was not there when the lock was made."""
    entries = lock_entries(lock)
    assert entries
    for entry in entries:
        assert REQUIREMENT.match(entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_names_no_host_and_no_path(lock: Path) -> None:
    """Where packages come from is the business of whoever installs."""
    text = lock.read_text(encoding="utf-8")
    assert [] == re.findall(
        r"\w+://\S*|--index\S*|--extra-index\S*|--find-links\S*|--trusted\S*|file:\S*", text
    )
    assert [] == re.findall(r"(?<![\w.-])/[a-z]+/\S+", text)


def test_the_locks_cover_what_the_package_declares() -> None:
    """A new dependency needs `make lock`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    groups = {
        name: [entry for entry in entries if isinstance(entry, str)]
        for name, entries in project["dependency-groups"].items()
    }
    service = dependencies(extras["service"], extras["cpu"], extras["s3"], extras["gcs"])
    gpu = dependencies(extras["service"], extras["gpu"], extras["s3"], extras["gcs"])
    operator = dependencies(extras["operator"])
    dev = dependencies(groups["dev"], groups["build"], extras["bench"], extras["client"])
    peers = dependencies(extras["service"], extras["cpu"], groups["peers"], groups["build"])
    assert set() == service - names_in(ROOT / "requirements" / "service-cpu.txt")
    assert set() == gpu - names_in(ROOT / "requirements" / "service-gpu.txt")
    assert set() == dependencies(groups["build"]) - names_in(ROOT / "requirements" / "build.txt")
    assert set() == operator - names_in(ROOT / "requirements" / "operator.txt")
    assert set() == (service | operator | dev) - names_in(ROOT / "requirements" / "dev.txt")
    assert set() == peers - names_in(ROOT / "requirements" / "bench-peers.txt")


@pytest.mark.parametrize("shipped", ["service-cpu.txt", "operator.txt"])
def test_what_is_shipped_and_its_tests_share_one_version(shipped: str) -> None:
    """Tests run what is shipped."""
    lock, dev = (
        set(REQUIREMENT.findall((ROOT / "requirements" / name).read_text(encoding="utf-8")))
        for name in (shipped, "dev.txt")
    )
    assert set() == lock - dev


@pytest.mark.parametrize(
    ("wish", "said"), [("no-such-python", "kosine needs Python 3.11, 3.12 or 3.13"), ("", "")]
)
def test_a_python_is_found_or_the_message_says_which_are_good(wish: str, said: str) -> None:
    """`make` on a bare machine ends with a name, or with what to install."""
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHON": wish}
    done = subprocess.run(
        [ROOT / "scripts" / "find-python"], capture_output=True, text=True, env=environment, check=False
    )
    assert bool(said) == bool(done.returncode)
    assert said in done.stderr
    if not said:
        found = subprocess.run([done.stdout.strip(), "--version"], capture_output=True, text=True, check=True)
        assert re.match(r"Python 3\.1[123]\.", found.stdout)
