"""One line per event on stderr: JSON for machines, colours for a person at a terminal.

Our events have snake_case names that stay stable (docs/operator.md); what kopf, aiohttp and Python's warnings
say comes through the same formatter as `library_message`. Nothing is configured until `configure` is called,
which only the command line does.
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

_FIRST = ("timestamp", "level", "event", "logger")
_CHATTY = ("aiohttp", "asyncio", "kopf", "kubernetes")
"""Their INFO repeats what our events say; it comes back with the level `debug`."""

_EXPECTED = "kopf._core.reactor.running"
"""Warns that signals do not reach it, which is as it should be: they are ours."""


def configure(*, form: LogFormat = "auto", level: LogLevel = "info", stream: TextIO | None = None) -> None:
    """Send every log line of the process to `stream` (default: stderr). `auto`: console on a terminal.

    May be called again; the last call counts.
    """
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
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
            foreign_pre_chain=[*shared, _name_library_event],
            processors=_rendering(form=form, colours=stream.isatty()),
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.NOTSET if level == "debug" else logging.WARNING)
    logging.getLogger(_EXPECTED).setLevel(logging.ERROR)


def _rendering(*, form: LogFormat, colours: bool) -> list[Processor]:
    drop = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if form == "console" or (form == "auto" and colours):
        plain = structlog.dev.plain_traceback
        return [drop, structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain)]
    return [
        drop,
        structlog.processors.format_exc_info,
        _in_order,
        structlog.processors.JSONRenderer(_to_json),
    ]


def _name_library_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["message"] = str(event["event"]).strip()
    event["event"] = "library_message"
    return event


def _in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    first = {name: event.pop(name) for name in _FIRST if name in event}
    return {**first, **event}


def _to_json(event: EventDict, **_options: object) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()
