"""Figures of a view for Prometheus: counts, without the names of anything but nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nsm.view.model import WireState
from nsm.view.state import State


def families(state: State, prefix: str = "") -> Sequence[Metric]:
    """The figures; `prefix` begins all names."""
    wires = GaugeMetricFamily(f"{prefix}nsm_wires", "Wires by state and way", labels=["state", "way"])
    known = Counter((each.state, ",".join(each.way)) for each in state.wires())
    for (value, way), count in sorted(known.items()):
        wires.add_metric([value, way], count)
    for value in WireState:
        if not any(each[0] == value for each in known):
            wires.add_metric([value, ""], 0)
    components = GaugeMetricFamily(f"{prefix}nsm_components", "Components by kind and state", labels=["kind", "state"])
    for (kind, how), count in sorted(Counter((each.kind, each.state) for each in state.components()).items()):
        components.add_metric([kind, how], count)
    simple = {
        "nsm_wires_wanted": ("Wires that were requested and do not exist", len(state.attempts())),
        "nsm_endpoints": ("Registered endpoints", len(state.records.endpoints())),
        "nsm_services": ("Services", len(state.records.services())),
        "nsm_view_readers": ("Readers of the stream of changes", state.stream.readers),
    }
    gauges = [GaugeMetricFamily(f"{prefix}{name}", about, value=value) for name, (about, value) in simple.items()]
    events = CounterMetricFamily(f"{prefix}nsm_events", "Events by kind", labels=["kind"])
    for kind_of, count in sorted(state.history.counts.items()):
        events.add_metric([kind_of], count)
    return [wires, components, *gauges, events]


class Figures(Collector):
    """Answers Prometheus from `state`."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def describe(self) -> Sequence[Metric]:
        """Nothing: names are known when they are read."""
        return []

    def collect(self) -> Sequence[Metric]:
        """The figures now."""
        return families(self._state)

    async def answer(self, _request: web.Request) -> web.Response:
        """In Prometheus's text format."""
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
