"""Sends metrics and logs to a collector if the configuration asks for that; imports nothing otherwise."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext

from nsm.chains.config import Common
from nsm.chains.core import InvalidRequest


def sent_metrics(component: str, config: Common) -> AbstractAsyncContextManager[None]:
    """Send metrics while the context is open. Raises `InvalidRequest` if a package is missing."""
    if not config.sends_figures:
        return nullcontext()
    try:
        from nsm.chains.otlp.figures import figures  # noqa: PLC0415 - only where it is asked for
    except ImportError as error:
        raise _missing("metrics", error) from None
    return figures(component, config)


def sent_logs(component: str, config: Common) -> AbstractContextManager[None]:
    """Send logs while the context is open. Raises `InvalidRequest` if a package is missing."""
    if not config.sends_lines:
        return nullcontext()
    try:
        from nsm.chains.otlp.lines import lines  # noqa: PLC0415 - only where it is asked for
    except ImportError as error:
        raise _missing("logs", error) from None
    return lines(component, config)


def _missing(what: str, error: ImportError) -> InvalidRequest:
    return InvalidRequest(f"{what} are to be sent, but {error.name} is missing: install nsm-chains[otlp]")
