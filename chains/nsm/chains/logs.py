"""Logs: one readable line per event, JSON when the output is not a terminal.

Every line has the time, level, component, event and its values, with the connection id if there is one.
Tokens and keys are never logged. On a terminal, text from other components is escaped; JSON escapes it by itself.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

if "structlog" not in sys.modules:
    # Tracebacks by rich would add 30 ms to every start, and show local variables, including tokens.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    import structlog.dev

    if sys.modules["rich"] is None:
        del sys.modules["rich"]

import structlog
from structlog.typing import EventDict, ExcInfo, FilteringBoundLogger, WrappedLogger

from .terminal import escaped, escaped_lines

log: FilteringBoundLogger = structlog.get_logger()
"""The logger that all components share."""


def named(name: str) -> FilteringBoundLogger:
    """The logger for one part of a component."""
    logger: FilteringBoundLogger = structlog.get_logger(name)
    return logger


class _Logger:
    """The methods of loggers of this process, by the present level: `set_level` replaces them."""


def set_level(level: str) -> None:
    """Log from `level` on, a level name of `logging`, in loggers that exist too."""
    for name, method in vars(structlog.make_filtering_bound_logger(logging.getLevelName(level))).items():
        if not name.startswith("_"):
            setattr(_Logger, name, method)


@contextmanager
def listened(listener: Callable[[EventDict], None]) -> Iterator[None]:
    """Call `listener` with the values of each line while the context is open; it must not change them."""
    _LISTENERS.append(listener)
    try:
        yield
    finally:
        _LISTENERS.remove(listener)


_LISTENERS: list[Callable[[EventDict], None]] = []


def _listen(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for listener in _LISTENERS:
        listener(event)
    return event


def set_up(component: str, level: str, stream: TextIO | None = None) -> None:
    """Configure logging for this process; `level` is a level name of `logging`. `NO_COLOR` is honoured."""
    out = stream or sys.stderr
    vars(log).pop("bind", None)  # of a process that has logged, and of which this one is a fork
    set_level(level)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns about each write to a peer that has just left
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _component(component),
            _listen,
            *(_readable() if out.isatty() else _json()),
        ],
        wrapper_class=type("Logger", (_Logger, structlog.make_filtering_bound_logger(logging.DEBUG)), {}),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=True,
    )


def _component(component: str) -> structlog.typing.Processor:
    def add(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["component"] = component
        return event

    return add


def _readable() -> list[structlog.typing.Processor]:
    colors = "NO_COLOR" not in os.environ
    return [_escaped, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_traceback)]


def _escaped(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape strings; other values are shown by `repr`, which escapes them already."""
    return {key: escaped(value) if isinstance(value, str) else value for key, value in event.items()}


def _traceback(stream: TextIO, exception: ExcInfo) -> None:
    plain = io.StringIO()
    structlog.dev.plain_traceback(plain, exception)
    stream.write(escaped_lines(plain.getvalue()))


def _json() -> list[structlog.typing.Processor]:
    return [_without_empty, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _without_empty(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: value for key, value in event.items() if value not in (None, "")}
