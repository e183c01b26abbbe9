"""Metrics for a component that has none of its own beyond those of every component."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from nsm.chains.core import MeshError

from .config import PrometheusConfig

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric


@asynccontextmanager
async def metrics(config: PrometheusConfig) -> AsyncIterator[None]:
    """Serve metrics while the context is open, if configured; Prometheus's library is imported only then.

    Raises `MeshError` if the library is missing.
    """
    if not config.prometheus:
        yield
        return
    try:
        from .exporter import exported  # noqa: PLC0415 - only where it is asked for
    except ImportError as error:
        raise MeshError(f"PROMETHEUS=true needs the extra nsm-chains[prometheus]: {error}") from error
    async with exported(_nothing_more, config):
        yield


async def _nothing_more(_prefix: str) -> Sequence[Metric]:
    return ()
