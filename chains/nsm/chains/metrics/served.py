"""Serves a component's metrics, if its configuration asks for it; the library is imported only then."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext

from nsm.chains.config import Common
from nsm.chains.core import MeshError


def metrics(config: Common) -> AbstractAsyncContextManager[None]:
    """Serve metrics while the context is open, if configured. Raises `MeshError` if the library is missing."""
    if not config.prometheus:
        return nullcontext()
    try:
        from .exporter import exported  # noqa: PLC0415 - only where it is asked for
    except ImportError as error:
        raise MeshError(f"PROMETHEUS=true needs the extra nsm-chains[prometheus]: {error}") from error
    return exported(config)
