"""Serves a component's metrics for Prometheus at ``/metrics``."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import accumulate
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from nsm.chains.config import Common
from nsm.chains.core import Backoff, Tasks
from nsm.chains.core.counts import COUNTER, HISTOGRAM, Buckets, Family
from nsm.chains.logs import log

from .bounded import bound
from .readings import families

_PATIENCE = 5.0
"""Timeout of one reading, in seconds."""
_FIRST_PAUSE = 0.5


@asynccontextmanager
async def exported(config: Common) -> AsyncIterator[None]:
    """Serve the component's metrics while the context is open.

    If the port is taken or the certificate is missing, it tries again. The component does not wait for this.

    """
    served: list[WSGIServer] = []
    try:
        async with Tasks("prometheus") as tasks:
            tasks.spawn(_serve(config, served), name="serve metrics")
            yield
    finally:
        for server in served:
            await asyncio.to_thread(server.shutdown)
            server.server_close()


async def _serve(config: Common, served: list[WSGIServer]) -> None:
    (host, port), prefix = config.prometheus_listen_on, config.prometheus_metrics_prefix
    registry, backoff = CollectorRegistry(), Backoff(_FIRST_PAUSE, config.prometheus_max_bind_threshold)
    ProcessCollector(namespace=prefix, registry=registry)
    registry.register(_InLoop(f"{prefix}_" if prefix else "", asyncio.get_running_loop()))
    while not served:
        try:
            server, _ = start_http_server(
                port,
                host or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0"),  # noqa: S104 - all is what it means
                registry,
                certfile=config.prometheus_cert_file or None,
                keyfile=config.prometheus_key_file or None,
                client_cafile=config.prometheus_ca_file or None,
                client_auth_required=bool(config.prometheus_ca_file),
                tls_min_version=ssl.TLSVersion.TLSv1_3,
            )
            bound(server)
            served.append(server)
        except OSError as error:
            pause = backoff.next()
            log.warning("metrics are not served", port=port, reason=str(error), again_in_s=pause)
            await asyncio.sleep(pause)
    log.info("metrics are served", port=served[0].server_port)


async def exposition() -> bytes:
    """All figures as they are now, in Prometheus's text format: for components that serve HTTP anyway."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Read([_metric(family, "") for family in await families()]))
    return generate_latest(registry)


class _Read(Collector):
    """Metrics that were read already."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        return self._metrics


class _InLoop(Collector):
    """Collects metrics from the event loop when the server's thread requests them."""

    def __init__(self, prefix: str, loop: asyncio.AbstractEventLoop) -> None:
        self._prefix, self._loop = prefix, loop

    def describe(self) -> Iterable[Metric]:
        """Nothing: they are collected when they are asked for, not when the collector is registered."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        found = asyncio.run_coroutine_threadsafe(families(), self._loop).result(_PATIENCE)
        return [_metric(family, self._prefix) for family in found]


def _metric(family: Family, prefix: str) -> Metric:
    name, labels = f"{prefix}{family.name}", family.labels
    if family.kind == HISTOGRAM:
        spread = HistogramMetricFamily(name, family.about, labels=labels)
        for values, found in family.samples:
            assert isinstance(found, Buckets)
            bounds = [*(str(bound) for bound in found.bounds), "+Inf"]
            spread.add_metric(values, [*zip(bounds, accumulate(found.counts), strict=True)], found.seconds)
        return spread
    made = (CounterMetricFamily if family.kind == COUNTER else GaugeMetricFamily)(name, family.about, labels=labels)
    for values, number in family.samples:
        assert not isinstance(number, Buckets)
        made.add_metric(values, number)
    return made
