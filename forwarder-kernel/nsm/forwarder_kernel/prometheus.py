"""Counters of wires for Prometheus, at ``/metrics``."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from nsm.chains.core import Tasks
from nsm.chains.logs import log

from .counters import CLIENT, SERVER, Count, Counters, Labels
from .prometheus_config import PrometheusConfig

_LABELS = [field.name for field in fields(Labels)]
_PATIENCE = 5.0
"""Seconds that a reading may take."""
_FIRST_PAUSE = 0.5


@asynccontextmanager
async def exported(counters: Counters, config: PrometheusConfig) -> AsyncIterator[None]:
    """Serve while the context is open. A port that is taken, or a certificate that is not there, is tried for again.

    Meanwhile the forwarder makes wires: nothing waits for this.
    """
    served: list[WSGIServer] = []
    try:
        async with Tasks("prometheus") as tasks:
            tasks.spawn(_serve(counters, config, served), name="serve metrics")
            yield
    finally:
        for server in served:
            await asyncio.to_thread(server.shutdown)
            server.server_close()


async def _serve(counters: Counters, config: PrometheusConfig, served: list[WSGIServer]) -> None:
    (host, port), prefix = config.prometheus_listen_on, config.prometheus_metrics_prefix
    registry, pause = CollectorRegistry(), _FIRST_PAUSE
    ProcessCollector(namespace=prefix, registry=registry)
    registry.register(_Wires(counters, prefix, asyncio.get_running_loop()))
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
            served.append(server)
        except OSError as error:
            log.warning("metrics are not served", port=port, reason=str(error), again_in_s=pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, config.prometheus_max_bind_threshold)
    log.info("metrics are served", port=served[0].server_port)


class _Wires(Collector):
    """Reads the counters when it is asked, in the server's thread."""

    def __init__(self, counters: Counters, prefix: str, loop: asyncio.AbstractEventLoop) -> None:
        self._counters, self._loop = counters, loop
        self._prefix = f"{prefix}_" if prefix else ""

    def collect(self) -> Iterator[CounterMetricFamily]:
        counts = asyncio.run_coroutine_threadsafe(self._counters.read(), self._loop).result(_PATIENCE)
        return families(counts, self._prefix)


def families(counts: Sequence[Count], prefix: str) -> Iterator[CounterMetricFamily]:
    """The metrics under upstream's names: `rx` is what the forwarder gets from that side, so what its holder sent."""
    for side in (CLIENT, SERVER):
        of_side = [count for count in counts if count.side == side]
        for name, about, field in (
            ("rx_bytes", "Bytes that came from the {}", "tx_bytes"),
            ("tx_bytes", "Bytes that went to the {}", "rx_bytes"),
            ("rx_packets", "Packets that came from the {}", "tx_packets"),
            ("tx_packets", "Packets that went to the {}", "rx_packets"),
            ("drops", "Packets that the interface of the {} dropped", "drops"),
        ):
            family = CounterMetricFamily(f"{prefix}{side}_{name}", about.format(_WHO[side]), labels=_LABELS)
            for count in of_side:
                values = [getattr(count.labels, label) for label in _LABELS]
                family.add_metric(values, getattr(count.traffic, field))
            yield family


_WHO = {CLIENT: "client", SERVER: "endpoint"}
