"""Traffic of each wire, by its service and its client and endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from nsm.apis.connection import Connection
from nsm.apis.mechanisms import KERNEL
from nsm.chains.core import Call, Element, Handler

from .dataplane import Dataplane
from .kernel_wire import LIVE
from .live_wire import LiveWire
from .netlink import Traffic

CLIENT, SERVER = "client", "server"


@dataclass(frozen=True, slots=True)
class Labels:
    """Which wire it is. The interface of an end that is on another node has no name here."""

    connection_id: str
    network_service: str
    nsc: str
    nsc_interface: str
    nse_interface: str


@dataclass(frozen=True, slots=True)
class Count:
    """The traffic of a wire's end on one side, `CLIENT` or `SERVER`: received and sent from its holder's view."""

    labels: Labels
    side: str
    traffic: Traffic


class Counters(Element):
    """Track the existing wires, and read their traffic.

    The kernel counts for each interface, so a restarted forwarder continues the counts. Stands in a forwarder's chain
    before the elements that make the wires.
    """

    def __init__(self, dataplane: Dataplane) -> None:
        self._dataplane = dataplane
        self._wires: dict[str, tuple[Labels, dict[str, str], LiveWire]] = {}

    def __len__(self) -> int:
        """The number of tracked wires, which a leak test counts."""
        return len(self._wires)

    async def request(self, call: Call, rest: Handler) -> Connection:
        """Track the connection's current wire."""
        connection = await rest.request(call)
        own, live = call.live.connection_id, call.live.get(LIVE)
        if live is not None:
            if own not in self._wires:
                call.live.on_end(partial(self._forget, own))
            names = _interfaces(connection, live)
            self._wires[own] = _labels(own, connection, names), names, live
        return connection

    async def read(self) -> list[Count]:
        """All current counts."""
        known = list(self._wires.values())
        traffic = await self._dataplane.traffic([live for _, _, live in known])
        return [
            Count(labels, side, passed)
            for (labels, names, _), ends in zip(known, traffic, strict=True)
            for side, passed in zip(names, ends, strict=True)
            if passed is not None
        ]

    def _forget(self, connection_id: str) -> None:
        del self._wires[connection_id]


def _interfaces(connection: Connection, live: LiveWire) -> dict[str, str]:
    """The interface of each side that has its end on this node, in the order of the wire's ends."""
    is_near = connection.mechanism is not None and connection.mechanism.type == KERNEL
    sides = (CLIENT, SERVER) if len(live.ends) == 2 else (CLIENT if is_near else SERVER,)
    return {side: place.name for side, place in zip(sides, live.wire.places, strict=True)}


def _labels(connection_id: str, connection: Connection, names: dict[str, str]) -> Labels:
    segments = connection.path.path_segments if connection.path is not None else []
    client = segments[0].name if segments else ""
    return Labels(connection_id, connection.network_service, client, names.get(CLIENT, ""), names.get(SERVER, ""))
