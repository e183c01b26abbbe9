"""Sends the lines of a component's log to a collector, with the span that they were written in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from structlog.processors import format_exc_info
from structlog.typing import EventDict

from nsm.chains.config import Common
from nsm.chains.logs import listened

from .destination import line_exporter, resource_of

_SEVERITIES = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
    "critical": SeverityNumber.FATAL,
}
_NO_ATTRIBUTES = {"event", "level", "timestamp", "component"}


@contextmanager
def lines(component: str, config: Common) -> Iterator[None]:
    """Send each line that is logged while the context is open; at its end those that were not sent yet."""
    provider = LoggerProvider(resource=resource_of(component, config))
    provider.add_log_record_processor(BatchLogRecordProcessor(line_exporter(config)))
    logger = provider.get_logger("nsm")

    def send(line: EventDict) -> None:
        logger.emit(_record(line))

    try:
        with listened(send):
            yield
    finally:
        provider.shutdown()


def _record(line: EventDict) -> LogRecord:
    line = format_exc_info(None, "", {**line})
    return LogRecord(
        severity_number=_SEVERITIES.get(line.get("level", ""), SeverityNumber.INFO),
        severity_text=line.get("level", "").upper(),
        body=str(line.get("event", "")),
        attributes={
            key: value if isinstance(value, str | int | float) else str(value)
            for key, value in line.items()
            if key not in _NO_ATTRIBUTES and value not in (None, "")
        },
    )
