"""Figures of a view for metrics: counts, without the names of anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from nsm.chains.core.counts import COUNTER, GAUGE, Family
from nsm.chains.metrics.exporter import exposition
from nsm.view.model import WireState
from nsm.view.state import State


def families(state: State) -> list[Family]:
    """The figures as they are now."""
    wires = Counter({(str(value), ""): 0 for value in WireState})
    wires.update((str(each.state), ",".join(each.way)) for each in state.wires())
    components = Counter((each.kind, str(each.state)) for each in state.components())
    simple = {
        "nsm_view_wires_wanted": ("Wires that were requested and do not exist", len(state.attempts())),
        "nsm_view_endpoints": ("Registered endpoints", len(state.records.endpoints())),
        "nsm_view_services": ("Services", len(state.records.services())),
        "nsm_view_readers": ("Readers of the stream of changes", state.stream.readers),
    }
    events = [((kind,), count) for kind, count in sorted(state.history.counts.items())]
    return [
        Family(GAUGE, "nsm_view_wires", "Wires by state and way", ("state", "way"), sorted(wires.items())),
        Family(
            GAUGE, "nsm_view_components", "Components by kind and state", ("kind", "state"), sorted(components.items())
        ),
        *(Family(GAUGE, name, about, (), [((), value)]) for name, (about, value) in simple.items()),
        Family(COUNTER, "nsm_view_events", "Events by kind", ("kind",), events),
    ]


def reader(state: State) -> Callable[[], Awaitable[list[Family]]]:
    """What the view adds to the figures of every component."""

    async def read() -> list[Family]:
        return families(state)

    return read


async def answer(_request: web.Request) -> web.Response:
    """All figures, in Prometheus's text format."""
    return web.Response(body=await exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})
