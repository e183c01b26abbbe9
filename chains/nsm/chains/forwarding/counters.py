"""Traffic of each wire, by its service and its client and endpoint."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

from nsm.apis.connection import Connection
from nsm.chains.core import Call, Element, Handler, MeshError, Tasks
from nsm.chains.logs import log
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
    forwarder's chain before the element that makes the wires. The answer to a refresh has the counts of `interval`
    seconds ago at most, in the metrics of the forwarder's path segment: they are read for all wires at a time.
    """

    def __init__(self, dataplane: Dataplane[Any], *, interval: float = 30.0) -> None:
        self._dataplane, self._interval = dataplane, interval
        self._wires: dict[str, tuple[Labels, LiveWire]] = {}
        self._known: dict[str, dict[str, str]] = {}
        """What the metrics of a path segment say of a wire."""
        self._tasks = Tasks("counters")

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
            if not len(self._tasks):
                self._tasks.spawn(self._read_again(), name="read counters")
            if (known := self._known.get(own)) is not None and connection.path is not None:
                metrics = connection.path.path_segments[connection.path.index].metrics
                if not metrics.keys() >= known.keys():  # else its dataplane has put newer ones there
                    metrics.update(known)
        return connection

    async def aclose(self) -> None:
        """Stop reading."""
        await self._tasks.aclose()

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

    async def _read_again(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                found = await self.read()
            except MeshError as error:
                log.debug("counters cannot be read", reason=str(error))
                continue
            known: dict[str, dict[str, str]] = {}
            for count in found:
                known.setdefault(count.labels.connection_id, {}).update(_metrics(count))
            self._known = known

    def _forget(self, connection_id: str) -> None:
        del self._wires[connection_id]
        self._known.pop(connection_id, None)


def _metrics(count: Count) -> dict[str, str]:
    """By upstream's names: the forwarder is the server of the client, and receives what that has sent."""
    side, passed = {CLIENT: SERVER, SERVER: CLIENT}[count.side], count.traffic
    named = {
        "rx_bytes": passed.tx_bytes,
        "tx_bytes": passed.rx_bytes,
        "rx_packets": passed.tx_packets,
        "tx_packets": passed.rx_packets,
        "drops": passed.drops,
    }
    return {f"{side}_{name}": str(number) for name, number in named.items()}


def _labels(connection_id: str, connection: Connection, live: LiveWire) -> Labels:
    segments = connection.path.path_segments if connection.path is not None else []
    client = segments[0].name if segments else ""
    interfaces = [side.interface if side.is_local else "" for side in live.wire.sides]
    return Labels(connection_id, connection.network_service, client, *interfaces)
