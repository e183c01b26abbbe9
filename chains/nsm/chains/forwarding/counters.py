"""Traffic of each wire, by its service and its client and endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler
from nsm.chains.model.traffic import Traffic

from .dataplane import LIVE, Dataplane, LiveWire

CLIENT, SERVER = "client", "server"


@dataclass(frozen=True, slots=True)
class Labels:
    """Which wire it is. The interface of a workload on another node has no name here."""

    connection_id: str
    network_service: str
    nsc: str
    nsc_interface: str
    nse_interface: str


@dataclass(frozen=True, slots=True)
class Count:
    """The traffic of one side of a wire, `CLIENT` or `SERVER`."""

    labels: Labels
    side: str
    traffic: Traffic


class Counters(Element):
    """Track the existing wires, and read their traffic.

    What forwards the packets counts for each interface, so a restarted forwarder continues the counts. Stands in a
    forwarder's chain before the element that makes the wires.
    """

    def __init__(self, dataplane: Dataplane[Any]) -> None:
        self._dataplane = dataplane
        self._wires: dict[str, tuple[Labels, LiveWire]] = {}

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
            self._wires[own] = _labels(own, connection, live), live
        return connection

    async def read(self) -> list[Count]:
        """All current counts."""
        known = list(self._wires.values())
        traffic = await self._dataplane.traffic([live for _, live in known])
        return [
            Count(labels, side, passed)
            for (labels, _), both in zip(known, traffic, strict=True)
            for side, passed in zip((CLIENT, SERVER), both, strict=True)
            if passed is not None
        ]

    def _forget(self, connection_id: str) -> None:
        del self._wires[connection_id]


def _labels(connection_id: str, connection: Connection, live: LiveWire) -> Labels:
    segments = connection.path.path_segments if connection.path is not None else []
    client = segments[0].name if segments else ""
    interfaces = [side.interface if side.is_local else "" for side in live.wire.sides]
    return Labels(connection_id, connection.network_service, client, *interfaces)
