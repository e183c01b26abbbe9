"""Counters of wires for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import fields
from itertools import chain

from prometheus_client.metrics_core import CounterMetricFamily, Metric

from nsm.chains.core.counts import Count as Events
from nsm.chains.metrics import PrometheusConfig
from nsm.chains.metrics.exporter import exported as served
from nsm.chains.metrics.exporter import families as counted

from .counters import CLIENT, SERVER, Count, Counters, Labels

_LABELS = [field.name for field in fields(Labels)]


def exported(
    counters: Counters, config: PrometheusConfig, events: Sequence[Events] = ()
) -> AbstractAsyncContextManager[None]:
    """Serve them, and what the dataplane counts in `events`, at ``/metrics`` while the context is open."""

    async def read(prefix: str) -> Iterator[Metric]:
        return chain(families(await counters.read(), prefix), counted(events, prefix))

    return served(read, config)


def families(counts: Sequence[Count], prefix: str) -> Iterator[CounterMetricFamily]:
    """The metrics under upstream's names: `rx` is what the forwarder receives from that side: what its holder sent."""
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
