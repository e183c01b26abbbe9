"""Serves a component's metrics for Prometheus at ``/metrics``: its own, and those that every component has."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nsm.chains.core import Backoff, Tasks, counts
from nsm.chains.logs import log

from .bounded import bound
from .config import PrometheusConfig

Read = Callable[[str], Awaitable[Iterable[Metric]]]
"""Returns the current metrics, with the argument as prefix of their names. Called in the component's event loop."""
_PATIENCE = 5.0
"""Timeout of one reading, in seconds."""
_FIRST_PAUSE = 0.5


@asynccontextmanager
async def exported(read: Read, config: PrometheusConfig) -> AsyncIterator[None]:
    """Serve the metrics from `read`, and those of every component, while the context is open.

    If the port is taken or the certificate is missing, it tries again. The component does not wait for this.

    """
    served: list[WSGIServer] = []
    try:
        async with Tasks("prometheus") as tasks:
            tasks.spawn(_serve(read, config, served), name="serve metrics")
            yield
    finally:
        for server in served:
            await asyncio.to_thread(server.shutdown)
            server.server_close()


async def _serve(read: Read, config: PrometheusConfig, served: list[WSGIServer]) -> None:
    (host, port), prefix = config.prometheus_listen_on, config.prometheus_metrics_prefix
    registry, backoff = CollectorRegistry(), Backoff(_FIRST_PAUSE, config.prometheus_max_bind_threshold)
    ProcessCollector(namespace=prefix, registry=registry)
    registry.register(_InLoop(read, f"{prefix}_" if prefix else "", asyncio.get_running_loop()))
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


class _InLoop(Collector):
    """Collects metrics from the event loop when the server's thread requests them."""

    def __init__(self, read: Read, prefix: str, loop: asyncio.AbstractEventLoop) -> None:
        self._read, self._prefix, self._loop = read, prefix, loop

    def collect(self) -> Iterable[Metric]:
        return asyncio.run_coroutine_threadsafe(self._now(), self._loop).result(_PATIENCE)

    async def _now(self) -> list[Metric]:
        return [*await self._read(self._prefix), *families(counts.ALL, self._prefix)]


def families(counted: Iterable[counts.Count], prefix: str) -> Iterator[Metric]:
    """What a component counts of itself (see `nsm.chains.core.counts`)."""
    for count in counted:
        kind = GaugeMetricFamily if count.goes_down else CounterMetricFamily
        family = kind(f"{prefix}{count.name}", count.about, labels=[count.label] if count.label else [])
        for value, number in count:
            family.add_metric([value] if count.label else [], number)
        yield family
