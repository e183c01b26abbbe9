"""How the traffic of each wire went during the last hour."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import timedelta

from .model import Counted, Wire

KEPT = timedelta(hours=1)
_STEP = timedelta(seconds=15)
"""At least so long between two counts that are kept; the latest one always is."""


class Counts:
    """The counts of each wire, by its id: small numbers, since a mesh may have ten thousand wires."""

    def __init__(self) -> None:
        self._by_wire: dict[str, deque[Counted]] = {}

    def note(self, wire: Wire) -> None:
        """Keep the present count of a wire, if it is another one."""
        traffic = wire.traffic
        if traffic is None or traffic.at is None:
            return
        kept = self._by_wire.setdefault(wire.id, deque())
        if kept and kept[-1].at == traffic.at:
            return
        if len(kept) > 1 and traffic.at - kept[-2].at < _STEP:
            kept.pop()
        kept.append(Counted(at=traffic.at, to_endpoint=traffic.to_endpoint.bytes, to_client=traffic.to_client.bytes))
        while kept[0].at < traffic.at - KEPT:
            kept.popleft()

    def forget(self, wire: Wire) -> None:
        """The wire is gone."""
        self._by_wire.pop(wire.id, None)

    def of(self, wire_id: str) -> Sequence[Counted]:
        """The counts of a wire, oldest first."""
        return [*self._by_wire.get(wire_id, ())]
