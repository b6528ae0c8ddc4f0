"""Whoever speaks, a line of the log has one form."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from kosine import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def written(say: Callable[[], object], **options: Any) -> list[dict[str, Any]]:
    stream = io.StringIO()
    logs.configure(form="json", stream=stream, **options)
    say()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line_with_its_facts_behind_the_usual_keys() -> None:
    """A reader finds time, level, event and logger first, then what the event is about."""

    def say() -> None:
        with structlog.contextvars.bound_contextvars(request_id="r1"):
            structlog.get_logger("kosine.loading").info("reload_published", index="items", rows=3)

    [line] = written(say)
    assert ["timestamp", "level", "event", "logger", "request_id", "index", "rows"] == list(line)
    assert ("info", "reload_published", "kosine.loading", "r1", "items", 3) == tuple(line.values())[1:]
    assert line["timestamp"].endswith("Z")


def test_facts_that_json_does_not_know_are_written_as_text() -> None:
    """No log call fails for the sake of its arguments."""
    [line] = written(lambda: structlog.get_logger("kosine").warning("odd", value=1 + 2j, number=float("nan")))
    assert ("(1+2j)", None) == (line["value"], line["number"])


def test_an_exception_is_written_with_its_traceback_in_the_same_line() -> None:
    """A defect is found in the log, not on a line of its own."""

    def say() -> None:
        try:
            raise RuntimeError("broken")
        except RuntimeError:
            structlog.get_logger("kosine").exception("request_defect")

    [line] = written(say)
    assert "request_defect" == line["event"]
    assert "RuntimeError: broken" in line["exception"]


@pytest.mark.parametrize("name", ["uvicorn.error", "watchfiles.main", "asyncio", "absl", "tensorflow"])
def test_what_a_library_says_has_the_same_form(name: str) -> None:
    """Standard library loggers go through the same formatter; their text is no event name."""
    [line] = written(lambda: logging.getLogger(name).error("it %s", "broke", extra={"code": 7}))
    assert ("error", "library_message", name, 7, "it broke") == tuple(line.values())[1:]


def test_a_handler_of_a_library_does_not_write_beside_ours() -> None:
    """TensorFlow and absl bring handlers of their own; they would print plain text to stderr."""
    library = logging.getLogger("tensorflow")
    stray = io.StringIO()
    library.addHandler(logging.StreamHandler(stray))
    library.propagate = False
    lines = written(lambda: library.error("once"))
    assert (1, "") == (len(lines), stray.getvalue())


def test_python_warnings_are_log_lines() -> None:
    """A warning names its place in a line of JSON."""
    code = "import warnings; from kosine import logs; logs.configure(form='json'); warnings.warn('careful')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    line = json.loads(done.stderr)
    assert ("warning", "library_message", "py.warnings") == tuple(line.values())[1:4]
    assert "UserWarning: careful" in line["message"]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "library_message"]),
        ("info", ["info", "warning"]),
        ("warning", ["warning"]),
        ("error", []),
    ],
)
def test_the_level_holds_for_events_and_silences_chatty_libraries(
    level: logs.LogLevel, expected: list[str]
) -> None:
    """A library's INFO repeats our events, so it is only heard at debug."""

    def say() -> None:
        log = structlog.get_logger("kosine")
        log.debug("debug")
        log.info("info")
        log.warning("warning")
        logging.getLogger("uvicorn.error").info("Started server process")

    assert expected == [line["event"] for line in written(say, level=level)]


def test_configuring_again_replaces_and_does_not_double() -> None:
    """The last call counts."""
    first = io.StringIO()
    logs.configure(form="json", stream=first)
    assert 1 == len(written(lambda: structlog.get_logger("kosine").info("once")))
    assert "" == first.getvalue()


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("form", "stream", "json_expected"),
    [
        ("auto", Terminal(), False),
        ("auto", io.StringIO(), True),
        ("json", Terminal(), True),
        ("console", io.StringIO(), False),
    ],
)
def test_auto_is_for_people_on_a_terminal_and_json_elsewhere(
    form: logs.LogFormat, stream: io.StringIO, json_expected: bool
) -> None:
    """Who reads decides the form, unless told otherwise."""
    logs.configure(form=form, stream=stream)
    structlog.get_logger("kosine").info("serving")
    assert json_expected == stream.getvalue().startswith("{")
    assert "serving" in stream.getvalue()


def test_what_a_client_sent_does_not_steer_the_terminal() -> None:
    """Control characters are escaped where a person reads."""
    stream = Terminal()
    logs.configure(form="console", stream=stream)
    structlog.get_logger("kosine").info("request_failed", index="\x1b[2J\r\nfake")
    assert "\x1b[2J" not in stream.getvalue()
    assert r"\x1b[2J\r\nfake" in stream.getvalue()


def test_importing_kosine_configures_no_logging() -> None:
    """A program that imports kosine keeps its own logging."""
    code = (
        "import logging, kosine.logs, kosine.cli; "
        "print(logging.getLogger().handlers, logging.getLogger('py.warnings').handlers)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[] []" == done.stdout.strip()
