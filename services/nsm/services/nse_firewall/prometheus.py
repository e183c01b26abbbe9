"""Counters of a firewall's rules for Prometheus."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from prometheus_client.metrics_core import CounterMetricFamily, Metric

from nsm.chains.metrics import PrometheusConfig
from nsm.chains.metrics.exporter import exported as served

from .firewall import Firewall


def exported(firewall: Firewall, config: PrometheusConfig) -> AbstractAsyncContextManager[None]:
    """Serve them at ``/metrics`` while the context is open."""

    async def read(prefix: str) -> Sequence[Metric]:
        packets = CounterMetricFamily(f"{prefix}firewall_packets", "Packets that a rule decided", labels=["rule"])
        size = CounterMetricFamily(f"{prefix}firewall_bytes", "Bytes that a rule decided", labels=["rule"])
        for count in await firewall.counts():
            packets.add_metric([count.rule], count.packets)
            size.add_metric([count.rule], count.bytes)
        return [packets, size]

    return served(read, config)
