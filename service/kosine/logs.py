"""One line per event on stderr: JSON for machines, colours for a person at a terminal.

Everything goes through the same formatter: our events (snake_case names that stay stable) and, as
`library_message`, what uvicorn, watchfiles, asyncio, TensorFlow and Python's warnings say. Nothing is
configured until `configure` is called, which only the command line does.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Literal

import msgspec
import structlog

if TYPE_CHECKING:
    from typing import TextIO

    from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ("LogFormat", "LogLevel", "configure")

LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]

_FIRST = ("timestamp", "level", "event", "logger", "request_id")
_CHATTY = ("absl", "asyncio", "tensorflow", "uvicorn", "uvicorn.error", "watchfiles")
"""Their INFO repeats what our events say; it comes back with the level `debug`."""
_OWN_HANDLERS = ("absl", "tensorflow", "uvicorn", "uvicorn.access", "uvicorn.error")


def configure(*, form: LogFormat = "auto", level: LogLevel = "info", stream: TextIO | None = None) -> None:
    """Send every log line of the process to `stream` (default: stderr). `auto`: console on a terminal.

    May be called again; the last call counts.
    """
    stream = stream or sys.stderr
    shared = _shared_processors()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(), _name_library_event],
            processors=_rendering(form=form, colours=stream.isatty()),
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    _route_libraries(level)


def _shared_processors() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _rendering(*, form: LogFormat, colours: bool) -> list[Processor]:
    drop = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if form == "console" or (form == "auto" and colours):
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain, sort_keys=False)
        return [drop, renderer]
    return [
        drop,
        structlog.processors.format_exc_info,
        _in_order,
        structlog.processors.JSONRenderer(_to_json),
    ]


def _name_library_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if not str(event.get("logger")).startswith("kosine"):
        event["message"] = str(event["event"]).strip()
        event["event"] = "library_message"
    return event


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    first = {name: event.pop(name) for name in _FIRST if name in event}
    return {**first, **event}


def _to_json(event: EventDict, **_options: object) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


def _route_libraries(level: LogLevel) -> None:
    logging.captureWarnings(capture=True)
    for name in _OWN_HANDLERS:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.NOTSET if level == "debug" else logging.WARNING)
