"""`kosine` as people type it: what it prints, how it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

import kosine
from kosine import configuration
from kosine.settings import IndexSettings
from tests.kit.process import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STARTUP_SECONDS = 60


def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kosine", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=STARTUP_SECONDS, check=False
    )


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_version_and_help_answer() -> None:
    """The two things everybody tries first."""
    assert (0, f"kosine {kosine.__version__}\n") == ((done := run("--version")).returncode, done.stdout)
    assert 0 == run("--help").returncode


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve"], "nothing to serve: name an .npy file, as in `kosine serve --index items=./items.npy`"),
        (["serve", "--index", "items"], "--index 'items': expected NAME=URI, such as items=./items.npy"),
        (
            ["serve", "--index", "items=x.npy", "--port", "http"],
            "service.port (command line): expected a whole number from 0 to 65535, got 'http'",
        ),
        (["serve", "--config", "missing.yaml"], "the configuration file missing.yaml does not exist"),
        (
            ["serve", "--config", "bad.yaml"],
            "bad.yaml: service.prot: unknown setting, got 1; known are host, ",
        ),
        (["serve", "--config", "bad.yaml", "--check"], "did you mean `port`?"),
        (["serve", "--index", "items=x.npy", "--device", "tpu"], "'tpu' is not one of 'auto', 'cpu', 'gpu'"),
        (["serve", "--index", "items=x.npy", "--host", "256.0.0.1"], "cannot listen on 256.0.0.1:8080: "),
        (["demo", "--port", "99999"], "expected a whole number from 0 to 65535, got 99999"),
        (["demo", "--dir", "bad.yaml/x"], "cannot write to "),
        (["sevre"], "No such command 'sevre'"),
    ],
)
def test_what_cannot_be_done_is_one_message_and_exit_code_2(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    """A person who mistyped reads what to type, never a traceback."""
    (tmp_path / "bad.yaml").write_text("service: {prot: 1}", encoding="utf-8")
    done = run(*arguments, cwd=tmp_path)
    assert (2, "") == (done.returncode, done.stdout)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (["demo"], "kosine demo --port PORT"),
        (["serve", "--index", "items=x.npy"], "choose another address with --host and --port"),
    ],
    ids=["demo", "serve"],
)
def test_a_port_that_is_taken_is_named(command: list[str], remedy: str) -> None:
    """Exit 2 at once, with the port and how to choose another one."""
    with taken_port() as port:
        done = run(*command, "--port", str(port))
    assert 2 == done.returncode
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
    assert remedy in done.stderr
    assert "Traceback" not in done.stderr


def test_check_prints_the_configuration_that_would_be_in_force(tmp_path: Path) -> None:
    """File, then options; the output is a configuration file itself."""
    config = tmp_path / "kosine.yaml"
    config.write_text("defaults: {k: 5}\nindexes: {items: {uri: items.npy}}", encoding="utf-8")
    done = run("serve", "--config", config, "--set", "service.port=9000", "--device", "cpu", "--check")
    assert (0, "") == (done.returncode, done.stderr)
    settings = configuration.parse(done.stdout)
    assert (9000, "cpu") == (settings.service.port, settings.service.device)
    assert {"items": IndexSettings(uri=str(tmp_path / "items.npy"), k=5)} == settings.indexes


@contextmanager
def demo(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-u", "-m", "kosine", "demo", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], last: str) -> str:
    """What the process prints, up to the line `last`."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.strip() == last:
            return "".join(lines)
    raise AssertionError(f"exit {process.wait()} before {last!r}: {lines}")


def names_of(answer: str) -> list[str]:
    return [name for name, _ in json.loads(answer)["result"]]


def listed(sentence: str) -> list[str]:
    return re.split(r", | and ", sentence.rstrip("."))


def shell(line: str) -> str:
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="the demo prints curl lines")
@pytest.mark.timeout(STARTUP_SECONDS * 2)
def test_the_lines_the_demo_prints_do_what_it_says(tmp_path: Path) -> None:
    """Pasted, they answer what was announced; a replaced file changes the answer; Ctrl-C ends it with 0."""
    with demo("--dir", str(tmp_path)) as process:
        text = read_until(process, "Ctrl-C stops the service.")
        cities, colours = re.findall(r"^curl .*$", text, re.MULTILINE)
        [move] = re.findall(r"^mv .*$", text, re.MULTILINE)
        expected = [listed(found) for found in re.findall(r"itself, then (.*)", text)]

        assert ["Paris", *expected[0]] == names_of(shell(cities))
        before = shell(colours)
        assert ["tomato", *expected[1]] == names_of(before)

        shell(move)
        [after] = re.findall(r"best\n\s+are (.*)", text)
        eventually(lambda: names_of(shell(colours)) == listed(after), within=20, what=after)
        assert json.loads(before)["version"] != json.loads(shell(colours))["version"]

        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=STARTUP_SECONDS)
        assert (0, "Stopped.") == (process.returncode, rest.strip())
        assert "Traceback" not in errors


@pytest.mark.timeout(STARTUP_SECONDS * 2)
def test_the_demo_leaves_nothing_behind_and_can_be_stopped_while_it_starts() -> None:
    """Its temporary folder is gone after Ctrl-C, even before the service is up."""
    with demo() as process:
        assert process.stdout is not None
        found = re.search(r"Two indexes in (.*):", process.stdout.readline())
        assert found is not None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=STARTUP_SECONDS)
        assert process.returncode in {0, 130}
        assert "Traceback" not in errors
    from pathlib import Path

    assert not Path(found[1]).exists()


def test_inspect_tells_a_good_file_from_a_bad_one(tmp_path: Path) -> None:
    """Exit 0 and 1, for scripts; the reason for people."""
    np.save(tmp_path / "good.npy", np.eye(3, dtype=np.float32))
    (tmp_path / "bad.npy").write_bytes(b"<html>")
    assert 0 == run("inspect", tmp_path / "good.npy").returncode
    bad = run("inspect", tmp_path / "bad.npy")
    assert 1 == bad.returncode
    assert "bad_magic" in bad.stdout


@pytest.mark.parametrize(
    ("name", "chosen", "in_force"),
    [
        ("OPENBLAS_THREAD_TIMEOUT", None, "4"),
        ("OPENBLAS_THREAD_TIMEOUT", "20", "20"),
        ("OPENBLAS_NUM_THREADS", None, "1"),
        ("OPENBLAS_NUM_THREADS", "2", "2"),
    ],
)
def test_threads_of_blas_neither_spin_nor_outnumber_the_cpus_unless_somebody_wants_it(
    name: str, chosen: str | None, in_force: str
) -> None:
    """Said before NumPy is loaded, which reads it once. The process may use one CPU."""
    ask = (
        "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "import kosine.cli; assert 'numpy' not in sys.modules; "
        "kosine.cli.main(['serve', '--check'], standalone_mode=False); print(os.environ[sys.argv[1]])"
    )
    environment = {key: value for key, value in os.environ.items() if key != name}
    if chosen is not None:
        environment[name] = chosen
    done = subprocess.run(
        [sys.executable, "-c", ask, name], env=environment, capture_output=True, text=True, check=True
    )
    assert in_force == done.stdout.splitlines()[-1]
