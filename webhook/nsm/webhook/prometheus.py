"""The webhook's metrics for Prometheus."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from itertools import accumulate

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from nsm.chains.metrics import PrometheusConfig
from nsm.chains.metrics.exporter import exported as served

from .counters import BOUNDS, Admissions


def exported(
    admissions: Admissions,
    expires: Callable[[], datetime.datetime | None],
    registered: Callable[[], bool | None],
    config: PrometheusConfig,
) -> AbstractAsyncContextManager[None]:
    """Serve metrics at ``/metrics`` while the context is open. `registered` returns None if SPIRE registers us."""

    async def read(prefix: str) -> list[Metric]:
        return [
            *_of_admissions(admissions, f"{prefix}nsm_webhook_"),
            *_of_trust(expires(), registered(), f"{prefix}nsm_webhook_"),
        ]

    return served(read, config)


def _of_admissions(admissions: Admissions, prefix: str) -> Iterator[Metric]:
    counts = CounterMetricFamily(
        f"{prefix}admissions", "Reviews that were answered, by the object's kind", labels=["kind", "result"]
    )
    for labels, count in admissions.results.items():
        counts.add_metric(labels, count)
    yield counts
    bounds = [*map(str, BOUNDS), "+Inf"]
    buckets = list(zip(bounds, accumulate(admissions.within), strict=True))
    about = "Duration of reviews"
    yield HistogramMetricFamily(
        f"{prefix}admission_duration_seconds", about, buckets=buckets, sum_value=admissions.seconds
    )


def _of_trust(expires: datetime.datetime | None, registered: bool | None, prefix: str) -> Iterator[Metric]:
    """Metrics about the certificate; unknown values are left out."""
    if expires is not None:
        about = "When the presented certificate expires, in seconds since 1970"
        yield GaugeMetricFamily(f"{prefix}certificate_expiration_timestamp_seconds", about, expires.timestamp())
    if registered is not None:
        about = "1 if the API server knows this replica's certificate, else 0"
        yield GaugeMetricFamily(f"{prefix}registered", about, int(registered))
