"""Starts endpoints of a local mesh: it asks the mesh, which reads the logs of its components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nsm.apis.connection import Connection
from nsm.chains.core import NotFound
from nsm.chains.logs import log

WANTED = "endpoint wanted"
"""The event that a local mesh answers by starting the endpoint, if that is on demand."""
_NODE = "nodeName"


@dataclass(frozen=True, slots=True)
class Supplied:
    """An endpoint that can be started, and its node."""

    name: str
    node: str


def parse_supplied(text: str) -> tuple[Supplied, ...]:
    """Endpoints as ``name@node, ..``. Raises ValueError."""
    found = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, at, node = item.partition("@")
        if not (name and at and node):
            raise ValueError(f"{item!r}: expected an endpoint and its node, such as shop-1@node-1")
        found.append(Supplied(name, node))
    return tuple(found)


class LocalSupplier:
    """Has one of `supplied` started: one on the client's node if there is any."""

    def __init__(self, supplied: Sequence[Supplied]) -> None:
        self._supplied = supplied

    async def supply(self, connection: Connection) -> str:
        """See `Supplier`."""
        node = connection.labels.get(_NODE, "")
        near = [each for each in self._supplied if each.node == node] or list(self._supplied)
        if not near:
            raise NotFound(f"no endpoint of {connection.network_service!r} is on demand")
        log.info(WANTED, endpoint=near[0].name)
        return near[0].name
