"""Sends a component's metrics to a collector, again and again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from nsm.chains.config import Common
from nsm.chains.core import Tasks
from nsm.chains.core.counts import COUNTER, HISTOGRAM, Buckets, Family
from nsm.chains.metrics import families

from .destination import figure_exporter, resource_of

_SCOPE = InstrumentationScope("nsm")


@asynccontextmanager
async def figures(component: str, config: Common) -> AsyncIterator[None]:
    """Send the component's metrics each `NSM_METRICS_EXPORT_INTERVAL` while the context is open, and at its end."""
    sender = _Sender(component, config)
    async with Tasks("metrics") as tasks:
        tasks.spawn(sender.run(config.metrics_export_interval), name="send metrics")
        yield
    await sender.send()


class _Sender:
    def __init__(self, component: str, config: Common) -> None:
        self._resource, self._exporter = resource_of(component, config), figure_exporter(config)
        self._begun = time.time_ns()

    async def run(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            await self.send()

    async def send(self) -> None:
        """Send all figures as they are now, in a thread; the exporter reports what goes wrong."""
        now = time.time_ns()
        metrics = [_metric(family, self._begun, now) for family in await families() if family.samples]
        scope = ScopeMetrics(_SCOPE, metrics, schema_url="")
        data = MetricsData([ResourceMetrics(self._resource, [scope], schema_url="")])
        await asyncio.to_thread(self._exporter.export, data)


def _metric(family: Family, begun: int, now: int) -> Metric:
    unit = "s" if family.name.endswith("_seconds") else ""
    return Metric(family.name, family.about, unit, _data(family, begun, now))


def _data(family: Family, begun: int, now: int) -> Sum | Gauge | Histogram:
    if family.kind == HISTOGRAM:
        points = [_spread(_named(family, values), begun, now, found) for values, found in family.samples]
        return Histogram(points, AggregationTemporality.CUMULATIVE)
    start = begun if family.kind == COUNTER else now
    numbers = [NumberDataPoint(_named(family, values), start, now, _number(found)) for values, found in family.samples]
    if family.kind == COUNTER:
        return Sum(numbers, AggregationTemporality.CUMULATIVE, is_monotonic=True)
    return Gauge(numbers)


def _named(family: Family, values: Sequence[str]) -> dict[str, str]:
    return dict(zip(family.labels, values, strict=True))


def _number(found: float | Buckets) -> float:
    assert not isinstance(found, Buckets)
    return found


def _spread(attributes: dict[str, str], begun: int, now: int, found: Any) -> HistogramDataPoint:
    """`min` and `max` are not known: the encoder leaves out infinite ones."""
    return HistogramDataPoint(
        attributes=attributes,
        start_time_unix_nano=begun,
        time_unix_nano=now,
        count=sum(found.counts),
        sum=found.seconds,
        bucket_counts=found.counts,
        explicit_bounds=found.bounds,
        min=None,  # type: ignore[arg-type]  # optional in OTLP
        max=None,  # type: ignore[arg-type]
    )
